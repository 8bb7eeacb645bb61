//! Ragged batches and weighted factorizations on devices.

use lowkey::{
    Device, Dtype, Scratch, Tensor,
    svd::{self, Info, Options, Output, Rank},
};

use crate::{
    support::{self, Against, Maker, agreed},
    svd::{Matrix, infos, least_error, normal, ranks, spectrum, with_spectrum},
    svd_weighted::{keeps_the_promise, tensor, weight},
};

fn on_cpu(tensor: &Tensor) -> Tensor {
    tensor.to_device(&Device::cpu()).unwrap()
}

fn wide(tensor: &Tensor) -> Vec<f32> {
    if tensor.is_empty() { Vec::new() } else { tensor.contiguous().unwrap().to_f32_vec().unwrap() }
}

/// A ragged batch and a weighted factorization, held to an oracle and to the CPU path.
pub(crate) fn compare(make: &Maker<'_>) -> Vec<u8> {
    let near = |here: &[f32], there: &[f32], tolerance: f32| {
        let largest = there.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert!(here.len() == there.len() && here.iter().zip(there).all(|(x, y)| (x - y).abs() <= tolerance * largest));
    };
    let (offsets, a) = ([0, 5, 40], with_spectrum(61, 40, 9, &spectrum("power law", 9)));
    let device = make();
    let run = |rows: &Tensor| svd::truncated_ragged(rows, &offsets, Rank::Fixed(6), &Options::default()).unwrap();
    let here = run(&tensor(&a).to_device(&device).unwrap());
    let (u, s, v) = (wide(&on_cpu(&here.u)), wide(&on_cpu(&here.s)), wide(&on_cpu(&here.v)));
    for (i, pair) in offsets.windows(2).enumerate() {
        let segment = Matrix::from_fn(pair[1] - pair[0], 9, |row, j| a.at(pair[0] + row, j));
        let left = Matrix::from_fn(segment.m, 9, |row, j| {
            let of = |k: usize| u[(pair[0] + row) * 6 + k] * s[i * 6 + k] * v[(i * 9 + j) * 6 + k];
            segment.at(row, j) - (0..6).map(of).map(f64::from).sum::<f64>()
        });
        assert!(
            left.norm() <= 1.001 * least_error(&segment.singular_values(), segment.m.min(6)) + 1e-6 * segment.norm(),
            "segment {i}"
        );
    }
    agreed(&device, Against::Oracle);
    near(&s, &wide(&run(&tensor(&a)).s), 1e-5);
    agreed(&device, Against::Cpu);

    let (x, w, device) = (with_spectrum(62, 40, 12, &spectrum("power law", 12)), weight(63, 12, 1.0), make());
    let found = weighted_on(&device, &tensor(&x), &tensor(&w), 5, &Options::default());
    keeps_the_promise("a comparison", &found, &x, &w);
    agreed(&device, Against::Oracle);
    let cpu = svd::weighted(&tensor(&x), &tensor(&w), Rank::Fixed(5), &Options::default()).unwrap();
    near(&wide(&found.encoder), &wide(&cpu.encoder), 1e-3);
    near(&wide(&found.decoder), &wide(&cpu.decoder), 1e-3);
    agreed(&device, Against::Cpu);
    let parts = [u, s, v, wide(&found.encoder), wide(&found.decoder)].concat();
    parts.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

#[test]
fn every_segment_is_what_it_is_alone() {
    let device = support::device();
    let (lengths, heads, width, rank) = ([60, 1, 1030, 5, 9], 2, 20, 9);
    let offsets: Vec<usize> = (0..=lengths.len()).map(|i| lengths[..i].iter().sum()).collect();
    let tokens = offsets[lengths.len()];
    let data: Vec<f32> = normal(3, tokens * heads, width).data.iter().map(|x| *x as f32).collect();
    for (dtype, output, factors) in [
        (Dtype::F32, Output::Usv, Dtype::BF16),
        (Dtype::F16, Output::LatentDecoder, Dtype::F32),
        (Dtype::BF16, Output::Qb, Dtype::F16),
        (Dtype::F32, Output::ValuesOnly, Dtype::F32),
    ] {
        let options = Options { output, factors, ..Options::default() };
        let cache = Tensor::from_slice(&data, &[tokens, heads, width], &Device::cpu()).unwrap().to_dtype(dtype).unwrap();
        let rows = cache.to_device(&device).unwrap().transpose(0, 1).unwrap();
        let all = svd::truncated_ragged(&rows, &offsets, Rank::Fixed(rank), &options).unwrap();
        let verdicts = all.verdicts().unwrap();
        let [u, s, v] = [&all.u, &all.s, &all.v].map(on_cpu);
        for head in 0..heads {
            for (i, pair) in offsets.windows(2).enumerate() {
                let (len, own) = (pair[1] - pair[0], rank.min(pair[1] - pair[0]));
                let segment = rows.select(0, head).unwrap().narrow(0, pair[0], len).unwrap();
                let alone = svd::truncated(&segment, Rank::Fixed(own), &options).unwrap();
                assert_eq!(verdicts[head * lengths.len() + i], alone.verdicts().unwrap()[0], "{output:?} segment {i}");
                let u = u.select(0, head).unwrap().narrow(0, pair[0], len).unwrap();
                let v = v.select(0, head).unwrap().select(0, i).unwrap();
                let s = s.select(0, head).unwrap().narrow(0, i, 1).unwrap();
                for (part, one) in [(u, &alone.u), (s, &alone.s), (v, &alone.v)] {
                    let columns = part.shape()[1];
                    if columns == 0 {
                        continue;
                    }
                    assert_eq!(wide(&part.narrow(1, 0, own).unwrap()), wide(&on_cpu(one)), "{output:?} segment {i}");
                    assert!(wide(&part.narrow(1, own, columns - own).unwrap()).iter().all(|x| *x == 0.0), "segment {i}");
                }
            }
        }
    }
}

#[test]
fn a_nan_marks_its_segment_alone_and_tolerances_are_met_in_each() {
    let device = support::device();
    let mut data: Vec<f32> = normal(4, 60, 16).data.iter().map(|x| *x as f32).collect();
    let offsets = [0, 25, 30, 60];
    let run = |data: &[f32], rank| {
        let rows = Tensor::from_slice(data, &[60, 16], &device).unwrap();
        svd::truncated_ragged(&rows, &offsets, rank, &Options::default()).unwrap()
    };
    let (before, met) = (run(&data, Rank::Fixed(8)), run(&data, Rank::Tolerance { relative: 0.4, max: 16 }));
    assert!(met.verdicts().unwrap().iter().all(|verdict| verdict.tail <= 0.4) && ranks(&met).iter().all(|rank| *rank < 16));
    data[26 * 16] = f32::NAN;
    let rows = Tensor::from_slice(&data, &[60, 16], &device).unwrap();
    let options = Options::default();
    let mut after = svd::Svd::zeros_ragged(&[60, 16], &offsets, 8, &options, &device).unwrap();
    let bytes = svd::scratch_bytes_ragged(&[60, 16], &offsets, 8, &options, &device).unwrap();
    let mut scratch = Scratch::with_bytes(&device, bytes).unwrap();
    let scope = device.memory_scope();
    svd::truncated_ragged_into(&rows, &offsets, Rank::Fixed(8), &options, &mut after, &mut scratch).unwrap();
    assert_eq!((scratch.bytes(), scope.peak()), (bytes, scope.at_start()), "nothing is allocated");
    assert!(matches!(infos(&after)[..], [Info::Solved(_), Info::NonFinite, Info::Solved(_)]), "{:?}", infos(&after));
    let rows = |svd: &svd::Svd, from, len| wide(&on_cpu(&svd.u).narrow(0, from, len).unwrap());
    assert!(rows(&after, 25, 5).iter().all(|x| x.is_nan()));
    assert_eq!((rows(&after, 0, 25), rows(&after, 30, 30)), (rows(&before, 0, 25), rows(&before, 30, 30)));
}

/// Weighted factorizations on a device, their parts on the CPU.
fn weighted_on(device: &Device, x: &Tensor, w: &Tensor, rank: usize, options: &Options) -> svd::Weighted {
    let [x, w] = [x, w].map(|tensor| tensor.to_device(device).unwrap());
    let found = svd::weighted(&x, &w, Rank::Fixed(rank), options).unwrap();
    let [encoder, decoder] = [&found.encoder, &found.decoder].map(on_cpu);
    svd::Weighted { encoder, decoder, svd: found.svd }
}

#[test]
fn weighted_rows_lose_what_was_predicted_and_the_least_there_is() {
    let device = support::device();
    for (seed, (m, n, rank)) in (0..).zip([(97, 16, 15), (40, 59, 7), (150, 33, 12), (9, 1, 1), (140, 131, 20)]) {
        let (x, w) = (with_spectrum(seed, m, n, &spectrum("power law", m.min(n))), weight(seed + 50, n, 1.5));
        let found = weighted_on(&device, &tensor(&x), &tensor(&w), rank, &Options::default());
        keeps_the_promise(&format!("{m}x{n} rank {rank}"), &found, &x, &w);
        let u = on_cpu(&found.svd.u).to_f32_vec().unwrap();
        let e = found.encoder.to_f32_vec().unwrap();
        let norm = u.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        for i in 0..m {
            for k in 0..rank {
                let latent: f64 = (0..n).map(|j| x.at(i, j) * f64::from(e[j * rank + k])).sum();
                assert!((latent - f64::from(u[i * rank + k])).abs() <= 2e-5 * norm, "{m}x{n}: latent {latent:e}");
            }
        }
    }
}

#[test]
fn weights_of_their_own_or_one_for_all_and_those_that_weigh_nothing() {
    let device = support::device();
    let (m, n, rank) = (70, 20, 5);
    let data = |of: &dyn Fn(u64) -> Matrix| (0..3).flat_map(|i| of(i).data).map(|x| x as f32).collect::<Vec<_>>();
    let x = Tensor::from_slice(&data(&|i| normal(i, m, n)), &[3, m, n], &Device::cpu()).unwrap();
    let mut weights = data(&|i| weight(i, n, 1.0));
    weights[2 * n * n..].fill(0.0);
    let ws = Tensor::from_slice(&weights, &[3, n, n], &Device::cpu()).unwrap();
    let options = Options { factors: Dtype::BF16, ..Options::default() };
    let together = weighted_on(&device, &x, &ws, rank, &options);
    let shared = weighted_on(&device, &x, &ws.select(0, 1).unwrap(), rank, &options);
    for i in 0..3 {
        let alone = weighted_on(&device, &x.select(0, i).unwrap(), &ws.select(0, i).unwrap(), rank, &options);
        let of = |found: &svd::Weighted| wide(&found.decoder.select(0, i).unwrap());
        assert_eq!(of(&together), wide(&alone.decoder));
        assert_eq!(of(&shared) == of(&together), i == 1);
    }
    let plain = svd::truncated(&x.select(0, 2).unwrap().to_device(&device).unwrap(), Rank::Fixed(rank), &options).unwrap();
    let unweighted = wide(&together.decoder.select(0, 2).unwrap());
    assert!(wide(&on_cpu(&plain.v)).iter().zip(&unweighted).all(|(x, y)| (x - y).abs() <= 0.01), "a weight of zeros");
    weights[n * n + 3] = f32::NAN;
    let ws = Tensor::from_slice(&weights, &[3, n, n], &Device::cpu()).unwrap();
    let marked = weighted_on(&device, &x, &ws, rank, &options);
    assert!(matches!(infos(&marked.svd)[..], [Info::Solved(_), Info::NonFinite, Info::Solved(_)]), "{:?}", infos(&marked.svd));
    assert!(wide(&marked.encoder.select(0, 1).unwrap()).iter().all(|x| x.is_nan()));
    assert_eq!(wide(&marked.decoder.select(0, 0).unwrap()), wide(&together.decoder.select(0, 0).unwrap()));
}
