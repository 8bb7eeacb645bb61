//! The kernels of element-wise operations.

use lowkey::{Device, Tensor, nn, philox::Stream};

use crate::support::{Against, Family, Maker, Mutation, Scale, agreed};

pub(crate) const FAMILY: Family = Family {
    folder: "nn",
    compare,
    mutation: Mutation { file: "nn/add.cu", from: "if (i < p.count)", to: "if (i + 1 < p.count)" },
};

fn random(seed: u64, len: usize) -> Vec<f32> {
    let stream = Stream::new(seed, 0);
    (0..len).map(|i| stream.normal(i as u64)).collect()
}

fn compare(make: &Maker<'_>, _: Scale) -> Vec<u8> {
    let mut bytes = Vec::new();
    for len in [1, 59, 97, 111, 1025] {
        let device = make();
        let (x, y) = (random(1, len), random(2, len));
        let on = |data: &[f32], device: &Device| Tensor::from_slice(data, &[len], device).unwrap();
        let mut sum = on(&x, &device);
        nn::add(&mut sum, &on(&y, &device)).unwrap();
        let found = sum.to_f32_vec().unwrap();
        // f64 holds the exact sum, and the nearest f32 to it is the only right answer.
        let oracle: Vec<f32> = x.iter().zip(&y).map(|(x, y)| (f64::from(*x) + f64::from(*y)) as f32).collect();
        assert_eq!(found, oracle, "{len} elements");
        agreed(&device, Against::Oracle);
        let mut host = on(&x, &Device::cpu());
        nn::add(&mut host, &on(&y, &Device::cpu())).unwrap();
        assert_eq!(found, host.to_f32_vec().unwrap(), "{len} elements");
        agreed(&device, Against::Cpu);
        bytes.extend(bytemuck::cast_slice::<f32, u8>(&found));
    }
    bytes
}
