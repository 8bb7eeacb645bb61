//! The linear kernels, executed on the emulated device, against an f64 oracle and the CPU path.
//!
//! Arithmetic is f32 whatever the dtype of the factors, so one bound serves all: 64 eps of the sum of magnitudes.

use lowkey::{Device, Dtype, Error, Scratch, Tensor, device::Emulation, linear, philox::Stream};

use crate::support::{self, Against, Family, Maker, Mutation, Scale, agreed};

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

fn emulated(schedule: u64) -> Device {
    Device::emulate(Emulation { schedule, ..Emulation::default() }).unwrap()
}

fn normal(seed: u64, shape: &[usize], dtype: Dtype) -> Tensor {
    let stream = Stream::new(seed, 0);
    let data: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(|i| stream.normal(i)).collect();
    Tensor::from_slice(&data, shape, &Device::cpu()).unwrap().to_dtype(dtype).unwrap()
}

/// A factorized layer on the CPU.
struct Layer {
    b: Tensor,
    a: Tensor,
    bias: Option<Tensor>,
}

impl Layer {
    fn random(seed: u64, [k, r, n]: [usize; 3], dtype: Dtype, bias: bool) -> Self {
        let bias = bias.then(|| normal(seed + 2, &[n], Dtype::F32));
        Self { b: normal(seed, &[r, k], dtype), a: normal(seed + 1, &[n, r], dtype), bias }
    }

    fn apply(&self, x: &Tensor, device: &Device) -> Vec<f32> {
        let on = |tensor: &Tensor| tensor.to_device(device).unwrap();
        let bias = self.bias.as_ref().map(on);
        linear::factorized(&on(x), &on(&self.b), &on(&self.a), bias.as_ref()).unwrap().to_f32_vec().unwrap()
    }

    /// The exact result, and the sum of magnitudes that rounding errors are proportional to.
    fn oracle(&self, x: &Tensor) -> Vec<(f64, f64)> {
        let wide = |tensor: &Tensor| tensor.to_f32_vec().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
        let (xs, b, a, bias) = (wide(x), wide(&self.b), wide(&self.a), self.bias.as_ref().map(wide));
        let (k, r, n) = (x.shape()[1], self.b.shape()[0], self.a.shape()[0]);
        let product = |u: &[f64], v: &[f64]| {
            u.iter().zip(v).fold((0.0, 0.0), |(sum, size): (f64, f64), (u, v)| (sum + u * v, size + (u * v).abs()))
        };
        let mut out = Vec::new();
        for x in xs.chunks_exact(k) {
            let (latent, sizes): (Vec<f64>, Vec<f64>) = (0..r).map(|i| product(x, &b[i * k..(i + 1) * k])).unzip();
            for j in 0..n {
                let a = &a[j * r..(j + 1) * r];
                let size: f64 = sizes.iter().zip(a).map(|(size, a)| size * a.abs()).sum();
                let bias = bias.as_ref().map_or(0.0, |bias| bias[j]);
                out.push((product(&latent, a).0 + bias, size + bias.abs()));
            }
        }
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

pub(crate) const FAMILY: Family = Family {
    folder: "linear",
    compare,
    mutation: Mutation {
        file: "linear/factorized.cu",
        from: "for (int other = 1; other < SHARE; other++)",
        to: "for (int other = 1; other < SHARE - 1; other++)",
    },
};

/// [k, r, n] and rows: odd, aligned to vectors, longer than a block's stride; more rows than one launch takes.
const SIZES: [([usize; 3], usize); 6] =
    [([59, 7, 97], 3), ([1, 1, 1], 1), ([1025, 16, 5], 8), ([97, 111, 59], 9), ([64, 8, 64], 17), ([2056, 3, 9], 2)];

fn compare(make: &Maker<'_>, scale: Scale) -> Vec<u8> {
    let sizes = if scale == Scale::Smallest { &SIZES[..1] } else { &SIZES };
    let mut bytes = Vec::new();
    for (dtype, seed) in DTYPES.into_iter().zip(1..) {
        for &(size, rows) in sizes {
            let device = make();
            let layer = Layer::random(seed, size, dtype, rows % 2 == 1);
            let x = normal(seed + 9, &[rows, size[0]], Dtype::F32);
            let found = layer.apply(&x, &device);
            let expected = layer.oracle(&x);
            assert_eq!(found.len(), expected.len());
            let within = |y: &[f32]| {
                for (y, (exact, size_of_sum)) in y.iter().zip(&expected) {
                    let bound = 64.0 * f64::from(f32::EPSILON) * size_of_sum;
                    assert!((f64::from(*y) - exact).abs() <= bound, "{dtype} {size:?}, {rows} rows: {y}, expected {exact}");
                }
            };
            within(&found);
            agreed(&device, Against::Oracle);
            let on_cpu = layer.apply(&x, &Device::cpu());
            within(&on_cpu);
            for ((a, b), (_, size_of_sum)) in found.iter().zip(&on_cpu).zip(&expected) {
                assert!((a - b).abs() <= 64.0 * f32::EPSILON * *size_of_sum as f32, "{dtype} {size:?}: {a} and on the CPU {b}");
            }
            agreed(&device, Against::Cpu);
            bytes.extend(bits(&found).iter().flat_map(|bits| bits.to_ne_bytes()));
        }
    }
    bytes
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    let device = support::device();
    for dtype in DTYPES {
        for k in [97, 512] {
            let layer = Layer::random(5, [k, 24, 33], dtype, true);
            let x = normal(6, &[19, k], Dtype::F32);
            let together = layer.apply(&x, &device);
            for row in [0, 3, 7, 8, 18] {
                let alone = layer.apply(&x.narrow(0, row, 1).unwrap(), &device);
                assert_eq!(bits(&alone), bits(&together[row * 33..(row + 1) * 33]), "{dtype}, k {k}, row {row}");
            }
        }
    }
}

#[test]
fn factors_may_begin_anywhere() {
    let device = support::device();
    for dtype in DTYPES {
        let (b, a) = (normal(1, &[9, 33], dtype), normal(2, &[12, 8], dtype));
        let x = normal(3, &[3, 33], Dtype::F32);
        let view = |tensor: &Tensor, len| tensor.to_device(&device).unwrap().narrow(0, 1, len).unwrap();
        let found = linear::factorized(&view(&x, 2), &view(&b, 8), &view(&a, 11), None).unwrap().to_f32_vec().unwrap();
        let copied = |tensor: &Tensor, len| tensor.narrow(0, 1, len).unwrap();
        let layer = Layer { b: copied(&b, 8), a: copied(&a, 11), bias: None };
        assert_eq!(bits(&found), bits(&layer.apply(&copied(&x, 2), &device)), "{dtype}");
    }
}

#[test]
fn the_schedule_does_not_change_a_bit() {
    let layer = Layer::random(5, [300, 17, 21], Dtype::BF16, true);
    let x = normal(6, &[11, 300], Dtype::F32);
    let expected = layer.apply(&x, &emulated(0));
    for schedule in [1, 11, 22, 33, 44, 55, 66, 77, 88] {
        assert_eq!(bits(&layer.apply(&x, &emulated(schedule))), bits(&expected), "schedule {schedule}");
    }
}

#[test]
fn a_nan_stays_in_its_row_and_everything_is_written() {
    let device = support::device();
    let layer = Layer::random(5, [59, 7, 13], Dtype::F16, false);
    let mut x = normal(6, &[9, 59], Dtype::F32).to_f32_vec().unwrap();
    x[4 * 59 + 3] = f32::NAN;
    let x = Tensor::from_slice(&x, &[9, 59], &device).unwrap();
    let (b, a) = (layer.b.to_device(&device).unwrap(), layer.a.to_device(&device).unwrap());
    let mut scratch = Scratch::with_bytes(&device, linear::factorized_scratch_bytes(&x, &b, &a).unwrap()).unwrap();
    let mut out = Tensor::from_slice(&[f32::NAN; 9 * 13], &[9, 13], &device).unwrap();
    let scope = device.memory_scope();
    linear::factorized_into(&mut out, &x, &b, &a, None, &mut scratch).unwrap();
    assert_eq!(scope.peak(), scope.at_start(), "nothing is allocated");
    for (row, y) in out.to_f32_vec().unwrap().chunks(13).enumerate() {
        assert!(y.iter().all(|y| y.is_nan() == (row == 4)), "row {row}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_named_errors() {
    for device in [Device::cpu(), support::device()] {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &device).unwrap();
        let (x, b, a) = (zeros(&[2, 8], Dtype::F32), zeros(&[3, 8], Dtype::BF16), zeros(&[5, 3], Dtype::BF16));
        let shape = |result: lowkey::Result<Tensor>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
        let dtype = |result: lowkey::Result<Tensor>| assert!(matches!(result, Err(Error::Dtype { .. })), "{result:?}");
        assert!(linear::factorized(&x, &b, &a, None).is_ok());
        shape(linear::factorized(&x, &a, &b, None));
        shape(linear::factorized(&x, &b, &a, Some(&zeros(&[4], Dtype::F32))));
        shape(linear::factorized(&x, &b, &zeros(&[5, 3], Dtype::F16), None));
        shape(linear::factorized(&x, &b, &zeros(&[3, 5], Dtype::BF16).transpose(0, 1).unwrap(), None));
        dtype(linear::factorized(&zeros(&[2, 8], Dtype::F16), &b, &a, None));
        dtype(linear::factorized(&x, &zeros(&[3, 8], Dtype::I8), &a, None));
        dtype(linear::factorized(&x, &b, &a, Some(&zeros(&[5], Dtype::BF16))));
    }
    let x = Tensor::zeros(&[2, 8], Dtype::F32, &support::device()).unwrap();
    let (b, a) = (normal(1, &[3, 8], Dtype::F32), normal(2, &[5, 3], Dtype::F32));
    assert!(matches!(linear::factorized(&x, &b, &a, None), Err(Error::Device { .. })));
}

#[test]
fn scratch_of_another_device_is_refused() {
    let device = support::device();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, Dtype::F32, &device).unwrap();
    let (x, b, a, mut out) = (zeros(&[2, 8]), zeros(&[3, 8]), zeros(&[5, 3]), zeros(&[2, 5]));
    support::refuses_scratch_of_the_cpu(&device, |scratch| linear::factorized_into(&mut out, &x, &b, &a, None, scratch));
}

#[test]
fn more_than_a_device_counts_is_refused() {
    let device = support::device();
    let most = 1 << 30;
    // Nothing but x of the first case has elements.
    for [rows, k, r, n] in
        [[524_281, 1, 0, 0], [0, most + 1, 0, 0], [0, 0, most + 1, 0], [0, 0, 0, most + 1], [0, 1 << 32, 0, 0]]
    {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, Dtype::F32, &device).unwrap();
        let (x, b, a) = (zeros(&[rows, k]), zeros(&[r, k]), zeros(&[n, r]));
        let scratch = linear::factorized_scratch_bytes(&x, &b, &a).map(drop);
        for result in [linear::factorized(&x, &b, &a, None).map(drop), scratch] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("524280 rows") && text.contains("1073741824"), "{text}");
        }
    }
}

/// Only the stream of x is captured, so what is launched elsewhere is done at once.
#[test]
fn a_layer_runs_on_the_stream_of_x() {
    let device = support::device();
    let stream = device.new_stream().unwrap();
    let layer = Layer::random(5, [59, 7, 13], Dtype::BF16, false);
    let x = normal(6, &[3, 59], Dtype::F32);
    let expected = layer.apply(&x, &device);
    let (b, a) = (layer.b.to_device(&device).unwrap(), layer.a.to_device(&device).unwrap());
    let x = x.to_device(&stream).unwrap();
    let mut scratch = Scratch::with_bytes(&device, linear::factorized_scratch_bytes(&x, &b, &a).unwrap()).unwrap();
    let mut out = Tensor::from_slice(&[f32::NAN; 3 * 13], &[3, 13], &stream).unwrap();
    device.synchronize().unwrap();
    let graph = stream.capture(|| linear::factorized_into(&mut out, &x, &b, &a, None, &mut scratch)).unwrap();
    assert!(out.to_f32_vec().unwrap().iter().all(|y| y.is_nan()), "captured, not run");
    graph.launch().unwrap();
    assert_eq!(bits(&out.to_f32_vec().unwrap()), bits(&expected));
}
