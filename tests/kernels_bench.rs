//! The kernels that measure what a GPU can do at best: they do the work that their figures count.

use half::bf16;
use lowkey::{Device, device::Grid, philox::Stream};

use crate::support::{Against, Family, Maker, Mutation, Scale, agreed};

pub(crate) const FAMILY: Family = Family {
    folder: "bench",
    compare,
    mutation: Mutation {
        file: "bench/limits.cu",
        from: "for (; i < p.count; i += stride) {",
        to: "for (; i + 1 < p.count; i += stride) {",
    },
};

fn params(addresses: &[u64], words: &[u64]) -> Vec<u8> {
    addresses.iter().chain(words).flat_map(|word| word.to_ne_bytes()).collect()
}

/// What every thread wrote.
fn launch(device: &Device, kernel: &str, blocks: u32, threads: u32, of: impl Fn(u64) -> Vec<u8>) -> Vec<f32> {
    let mut sums = device.alloc(4 * (blocks * threads) as usize).unwrap();
    sums.write(0, &vec![0xff; sums.bytes()]).unwrap();
    let grid = Grid { blocks: [blocks, 1, 1], threads, shared: 0 };
    // SAFETY: the parameters are those of kernels/bench/params.h, and each thread writes one sum.
    unsafe { device.launch_raw(kernel, grid, &of(sums.address().get())) }.unwrap();
    let mut found = vec![0.0f32; (blocks * threads) as usize];
    sums.read(0, bytemuck::cast_slice_mut(&mut found)).unwrap();
    found
}

fn compare(make: &Maker<'_>, _: Scale) -> Vec<u8> {
    let mut bytes = Vec::new();
    for count in [1usize, 59, 1025] {
        let device = make();
        let stream = Stream::new(7, 0);
        let data: Vec<f32> = (0..4 * count as u64).map(|i| stream.uniform(i)).collect();
        let mut buffer = device.alloc(16 * count).unwrap();
        buffer.write(0, bytemuck::cast_slice(&data)).unwrap();
        let of = |sums| params(&[buffer.address().get(), sums], &[count as u64]);
        let found = launch(&device, "bench_read", 2, 64, of);
        let total: f64 = data.iter().map(|x| f64::from(*x)).sum();
        let sum: f64 = found.iter().map(|x| f64::from(*x)).sum();
        assert!((sum - total).abs() <= 1e-6 * total, "{count}: {sum}, expected {total}");
        agreed(&device, Against::Oracle);
        bytes.extend(bytemuck::cast_slice::<f32, u8>(&found));
    }
    let device = make();
    let (steps, pair) = (5u64, 0x3f2b_bf55u64);
    let found = launch(&device, "bench_multiply", 1, 64, |sums| params(&[sums], &[steps | pair << 32]));
    let (low, high) = (bf16::from_bits(0xbf55).to_f64(), bf16::from_bits(0x3f2b).to_f64());
    // Of each thread eight accumulators of four elements, each a sum of eight squares of either number a step.
    let expected = 32.0 * steps as f64 * 8.0 * (low * low + high * high);
    assert!(found.iter().all(|x| (f64::from(*x) - expected).abs() <= 1e-5 * expected), "{found:?}, expected {expected}");
    agreed(&device, Against::Oracle);
    bytes.extend(bytemuck::cast_slice::<f32, u8>(&found));
    bytes
}
