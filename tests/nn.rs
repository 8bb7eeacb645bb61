//! Linear layers and row-wise operations: as accurate as f32 allows, at any size, whatever the output held before.

use lowkey::{
    Device, Dtype, Error, Tensor, linear,
    nn::{self, Activation},
    philox::Stream,
};

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let stream = Stream::new(seed, 1);
    let data: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(|i| stream.normal(i)).collect();
    Tensor::from_slice(&data, shape, &Device::cpu()).unwrap()
}

fn poisoned(shape: &[usize]) -> Tensor {
    Tensor::from_slice(&vec![f32::NAN; shape.iter().product()], shape, &Device::cpu()).unwrap()
}

#[test]
fn linear_layers_match_f64_at_odd_sizes_over_poisoned_outputs() {
    for (rows, k, n) in [
        (1, 1, 1),
        (1, 97, 59),
        (2, 111, 1025),
        (4, 1025, 3),
        (5, 59, 97),
        (59, 1, 111),
        (97, 1025, 59),
        (1025, 59, 1),
        (3, 0, 5),
    ] {
        let (x, w, b) = (normal(1, &[rows, k]), normal(2, &[n, k]), normal(3, &[n]));
        let (xs, ws, bs) = (x.to_f32_vec().unwrap(), w.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
        for bias in [None, Some(&b)] {
            let mut out = poisoned(&[rows, n]);
            linear::dense_into(&mut out, &x, &w, bias).unwrap();
            assert_eq!(linear::dense(&x, &w, bias).unwrap().to_f32_vec().unwrap(), out.to_f32_vec().unwrap());
            for (i, y) in out.to_f32_vec().unwrap().into_iter().enumerate() {
                let products = (0..k).map(|j| f64::from(xs[i / n * k + j]) * f64::from(ws[i % n * k + j]));
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                let offset = if bias.is_some() { f64::from(bs[i % n]) } else { 0.0 };
                let bound = f64::from(f32::EPSILON) * (8.0 * size + sum.abs() + offset.abs());
                assert!((f64::from(y) - sum - offset).abs() <= bound, "{rows} x {k} x {n}: {y}");
            }
        }
    }
}

#[test]
fn a_row_is_the_same_whatever_is_beside_it_inside_a_worker_or_not() {
    let (x, w) = (normal(4, &[40, 513]), normal(5, &[301, 513]));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let outside = linear::dense(&x, &w, None).unwrap().to_f32_vec().unwrap();
    let inside = pool.install(|| linear::dense(&x, &w, None).unwrap().to_f32_vec().unwrap());
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4);
    assert!(close(&outside, &inside));
    for row in [0, 17, 39] {
        let alone = linear::dense(&x.narrow(0, row, 1).unwrap(), &w, None).unwrap().to_f32_vec().unwrap();
        assert!(close(&alone, &outside[row * 301..][..301]));
    }
}

/// erf by its Taylor series, in f64; beyond 4 it is 1 to f32 and more.
fn erf(z: f64) -> f64 {
    if z.abs() > 4.0 {
        return z.signum();
    }
    let (mut term, mut sum) = (z, z);
    for n in 1..120 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn activations_match_f64_from_far_below_to_far_above_zero() {
    let xs: Vec<f32> = (-12000..=12000).map(|i| i as f32 * 1e-3).chain([-1e4, -100.0, -0.0, 1e-30, 100.0, 1e4]).collect();
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let tanh = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    let exact = |x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
    let functions: [(Activation, &dyn Fn(f64) -> f64); 3] =
        [(Activation::Silu, &silu), (Activation::GeluTanh, &tanh), (Activation::Gelu, &exact)];
    for (activation, function) in functions {
        let mut x = Tensor::from_slice(&xs, &[xs.len()], &Device::cpu()).unwrap();
        let up = normal(6, &[xs.len()]);
        let mut gate = Tensor::from_slice(&xs, &[xs.len()], &Device::cpu()).unwrap();
        nn::activate(&mut x, activation).unwrap();
        nn::activate_gated(&mut gate, &up, activation).unwrap();
        let (found, gated, up) = (x.to_f32_vec().unwrap(), gate.to_f32_vec().unwrap(), up.to_f32_vec().unwrap());
        for i in 0..xs.len() {
            let expected = function(f64::from(xs[i]));
            let bound = 4e-7 * (1.0 + f64::from(xs[i]).abs());
            assert!((f64::from(found[i]) - expected).abs() <= bound, "{activation:?} of {}: {}", xs[i], found[i]);
            assert_eq!(gated[i], found[i] * up[i], "{activation:?} of {}", xs[i]);
        }
    }
    let mut nan = poisoned(&[3]);
    nn::activate(&mut nan, Activation::Silu).unwrap();
    assert!(nan.to_f32_vec().unwrap().iter().all(|x| x.is_nan()), "a NaN is not hidden");
}

#[test]
fn norms_match_f64_at_odd_widths() {
    for width in [1, 16, 59, 97, 111, 1025] {
        let (x, w, b) = (normal(7, &[5, width]), normal(8, &[width]), normal(9, &[width]));
        let eps = 1e-5;
        let rms = nn::rms_norm(&x, &w, eps).unwrap().to_f32_vec().unwrap();
        let layer = nn::layer_norm(&x, &w, &b, eps).unwrap().to_f32_vec().unwrap();
        let wide = |t: &Tensor| t.to_f32_vec().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
        let (x, w, b) = (wide(&x), wide(&w), wide(&b));
        for (i, row) in x.chunks(width).enumerate() {
            let mean = row.iter().sum::<f64>() / width as f64;
            let square = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            for j in 0..width {
                let expected = row[j] / (square + f64::from(eps)).sqrt() * w[j];
                assert!((f64::from(rms[i * width + j]) - expected).abs() <= 1e-5 * (1.0 + expected.abs()));
                let expected = (row[j] - mean) / (variance + f64::from(eps)).sqrt() * w[j] + b[j];
                assert!((f64::from(layer[i * width + j]) - expected).abs() <= 1e-5 * (1.0 + expected.abs()));
            }
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_named_errors() {
    let (x, w) = (normal(1, &[3, 5]), normal(2, &[7, 5]));
    let shape = |result: lowkey::Result<Tensor>| assert!(matches!(result, Err(Error::Shape { .. })));
    shape(linear::dense(&x, &normal(2, &[7, 6]), None));
    shape(linear::dense(&x, &w, Some(&normal(3, &[5]))));
    shape(linear::dense(&normal(1, &[5]), &w, None));
    shape(nn::rms_norm(&x, &normal(3, &[3]), 1e-5));
    shape(nn::layer_norm(&x, &normal(3, &[5]), &normal(3, &[6]), 1e-5));
    shape(nn::embedding(&x, &[0, 3]));
    let half = x.to_dtype(Dtype::F16).unwrap();
    assert!(matches!(linear::dense(&half, &w, None), Err(Error::Dtype { .. })));
    assert!(matches!(nn::rms_norm(&half, &normal(3, &[5]), 1e-5), Err(Error::Dtype { .. })));
    assert!(matches!(nn::add(&mut normal(1, &[2]), &normal(1, &[3])), Err(Error::Shape { .. })));
    assert_eq!(nn::embedding(&x, &[2, 0]).unwrap().to_f32_vec().unwrap()[..5], x.to_f32_vec().unwrap()[10..]);
}
