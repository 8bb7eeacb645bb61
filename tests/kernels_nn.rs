//! The kernels of element-wise operations.

use lowkey::{Device, Dtype, Error, Tensor, nn, philox::Stream};

use crate::support::{self, Against, Family, Maker, Mutation, Scale, agreed};

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

#[test]
fn sums_of_unlike_tensors_are_named_errors() {
    for device in [Device::cpu(), support::device()] {
        let zeros = |dtype, device: &Device| Tensor::zeros(&[3, 4], dtype, device).unwrap();
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::I8] {
            for [x, y] in [[dtype, dtype], [Dtype::F32, dtype], [dtype, Dtype::F32]] {
                let error = nn::add(&mut zeros(x, &device), &zeros(y, &device)).unwrap_err();
                assert!(matches!(error, Error::Dtype { op: "nn::add", found, .. } if found == dtype), "{x} + {y}: {error}");
            }
        }
        let gaps = Tensor::zeros(&[4, 3], Dtype::F32, &device).unwrap().transpose(0, 1).unwrap();
        let mut x = zeros(Dtype::F32, &device);
        assert!(matches!(nn::add(&mut x, &gaps), Err(Error::Shape { .. })));
        assert!(matches!(nn::add(&mut gaps.clone(), &x), Err(Error::Shape { .. })));
    }
    let devices = [Device::cpu(), support::device()];
    let [here, there] = devices.each_ref().map(|device| Tensor::zeros(&[9], Dtype::F32, device).unwrap());
    for (mut x, y) in [(here.clone(), &there), (there.clone(), &here)] {
        let error = nn::add(&mut x, y).unwrap_err();
        let named = devices.iter().all(|device| error.to_string().contains(&device.to_string()));
        assert!(matches!(error, Error::Device { .. }) && named, "{error}");
    }
}

#[test]
fn a_shared_sum_gets_memory_of_its_own() {
    for device in [Device::cpu(), support::device()] {
        let (x, y) = (random(1, 97), random(2, 59));
        let whole = Tensor::from_slice(&x, &[97], &device).unwrap();
        let mut sum = whole.narrow(0, 31, 59).unwrap();
        nn::add(&mut sum, &Tensor::from_slice(&y, &[59], &device).unwrap()).unwrap();
        let expected: Vec<f32> = x[31..].iter().zip(&y).map(|(x, y)| x + y).collect();
        assert_eq!(sum.to_f32_vec().unwrap(), expected, "{device}");
        assert_eq!(whole.to_f32_vec().unwrap(), x, "{device}");
    }
}
