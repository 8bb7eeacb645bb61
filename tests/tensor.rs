//! Tensors: views share memory, only a sole owner writes, every byte is accounted.

use half::{bf16, f16};
use lowkey::{Device, Dtype, Error, Purpose, Tensor, philox::Stream};

fn ramp(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|i| i as f32).collect();
    Tensor::from_slice(&data, shape, &Device::cpu()).unwrap()
}

#[test]
fn views_read_what_indices_say() {
    let t = ramp(&[3, 5, 7]);
    let view = t.transpose(0, 2).unwrap().narrow(0, 2, 3).unwrap().select(1, 4).unwrap();
    assert_eq!(view.shape(), [3, 3]);
    let expected: Vec<f32> = (2..5).flat_map(|k| (0..3).map(move |i| (i * 35 + 4 * 7 + k) as f32)).collect();
    assert_eq!(view.to_f32_vec().unwrap(), expected);
    assert_eq!(view.contiguous().unwrap().slice::<f32>().unwrap(), expected);
    let rows = t.narrow(1, 1, 2).unwrap();
    assert_eq!(rows.contiguous().unwrap().to_f32_vec().unwrap(), rows.to_f32_vec().unwrap());
}

#[test]
fn empty_and_scalar_shapes_are_tensors() {
    let device = Device::cpu();
    assert!(Tensor::zeros(&[3, 0, 5], Dtype::F16, &device).unwrap().to_f32_vec().unwrap().is_empty());
    assert_eq!(Tensor::zeros(&[], Dtype::F32, &device).unwrap().to_f32_vec().unwrap(), [0.0]);
}

#[test]
fn a_shared_buffer_is_not_written() {
    let mut t = ramp(&[4, 4]);
    let view = t.narrow(0, 1, 2).unwrap();
    assert!(matches!(t.slice_mut::<f32>(), Err(Error::Shape { .. })));
    drop(view);
    t.slice_mut::<f32>().unwrap()[5] = -1.0;
    assert_eq!(t.to_f32_vec().unwrap()[5], -1.0);
}

#[test]
fn wrong_axes_ranges_dtypes_and_counts_are_named_errors() {
    let t = ramp(&[4, 6]);
    assert!(matches!(t.narrow(2, 0, 1), Err(Error::Shape { .. })));
    assert!(matches!(t.narrow(0, 3, 2), Err(Error::Shape { .. })));
    assert!(matches!(t.narrow(0, usize::MAX, 2), Err(Error::Shape { .. })));
    assert!(matches!(t.slice::<f16>(), Err(Error::Dtype { .. })));
    assert!(matches!(t.transpose(0, 1).unwrap().slice::<f32>(), Err(Error::Shape { .. })));
    assert!(matches!(t.reshape(&[5, 5]), Err(Error::Shape { .. })));
    assert!(matches!(Tensor::zeros(&[usize::MAX, 9], Dtype::F32, &Device::cpu()), Err(Error::Shape { .. })));
    let int4 = Tensor::zeros(&[3, 5], Dtype::I4, &Device::cpu()).unwrap();
    assert!(matches!(int4.narrow(0, 1, 1), Err(Error::Shape { .. })), "an odd row starts inside a byte");
}

#[test]
fn rounding_to_16_bits_is_to_nearest_even() {
    let stream = Stream::new(11, 0);
    let data: Vec<f32> = (0..1025).map(|i| stream.normal(i) * 10f32.powi((i % 9) as i32 - 4)).collect();
    let t = Tensor::from_slice(&data, &[1025], &Device::cpu()).unwrap();
    let half: Vec<f32> = data.iter().map(|x| f16::from_f32(*x).to_f32()).collect();
    let brain: Vec<f32> = data.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
    assert_eq!(t.to_dtype(Dtype::F16).unwrap().to_f32_vec().unwrap(), half);
    assert_eq!(t.to_dtype(Dtype::BF16).unwrap().to_f32_vec().unwrap(), brain);
}

#[test]
fn memory_is_accounted_by_purpose_and_scope() {
    let device = Device::cpu();
    let cache = Tensor::zeros(&[3, 5], Dtype::I4, &device.accounting(Purpose::Cache)).unwrap();
    assert_eq!(device.memory().of(Purpose::Cache).current, 8);
    let scope = device.memory_scope();
    drop(Tensor::zeros(&[1000], Dtype::F32, &device).unwrap());
    drop(Tensor::zeros(&[500], Dtype::F32, &device).unwrap());
    assert_eq!((scope.at_start(), scope.peak()), (8, 4008));
    drop(cache);
    let memory = device.memory();
    assert_eq!((memory.total.current, memory.total.peak), (0, 4008));
    assert_eq!((memory.of(Purpose::Cache).peak, memory.of(Purpose::Activations).peak), (8, 4000));
}

#[test]
fn memory_that_is_not_to_be_had_is_an_error() {
    let error = Tensor::zeros(&[1 << 50], Dtype::F32, &Device::cpu()).unwrap_err();
    assert!(matches!(error, Error::Device { .. }));
    assert!(error.to_string().contains("4503599627370496 bytes"), "{error}");
}

#[test]
fn devices_that_are_not_here_say_so() {
    assert!(matches!("cuda:99999".parse::<Device>(), Err(Error::Device { .. })));
    // The feature asks for an emulator; whether there is one depends on a C++ compiler.
    match "emulated".parse::<Device>() {
        Ok(device) => assert!(cfg!(feature = "emulator") && device.to_string() == "emulated"),
        Err(error) => assert!(matches!(error, Error::Device { .. }), "{error}"),
    }
    for name in ["", "gpu", "cuda:", "cuda:-1"] {
        assert!(matches!(name.parse::<Device>(), Err(Error::Input { .. })), "{name}");
    }
}
