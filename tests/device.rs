//! Devices: memory, streams, events, graphs and faults are the same on the emulator, on a GPU and, where it has them, on
//! the CPU.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use lowkey::{Device, Dtype, Error, Purpose, Tensor, device::Address, nn, philox::Stream};

use crate::support;

fn random(len: usize) -> Vec<f32> {
    let stream = Stream::new(5, 0);
    (0..len).map(|i| stream.normal(i as u64)).collect()
}

fn devices() -> Vec<Device> {
    vec![Device::cpu(), support::device()]
}

#[test]
fn tensors_move_to_a_device_and_back_unchanged() {
    for device in devices() {
        for len in [1, 59, 97, 111, 1025] {
            let data = random(len);
            let there = Tensor::from_slice(&data, &[len], &device).unwrap();
            assert_eq!(there.to_vec::<f32>().unwrap(), data, "{device}");
            assert_eq!(there.to_f32_vec().unwrap(), data, "{device}");
            let back = there.to_device(&Device::cpu()).unwrap();
            assert_eq!(back.slice::<f32>().unwrap(), data, "{device}");
            let again = back.to_dtype(Dtype::BF16).unwrap().to_device(&device).unwrap();
            assert_eq!(again.to_f32_vec().unwrap(), back.to_dtype(Dtype::BF16).unwrap().to_f32_vec().unwrap());
        }
        let zeros = Tensor::zeros(&[3, 0], Dtype::F32, &device).unwrap();
        assert!(zeros.to_f32_vec().unwrap().is_empty());
        assert_eq!(Tensor::zeros(&[77], Dtype::F32, &device).unwrap().to_f32_vec().unwrap(), [0.0; 77]);
    }
}

#[test]
fn views_of_device_memory_are_copied_as_their_indices_say() {
    let device = support::device();
    let data = random(3 * 5 * 7);
    let (here, there) = (
        Tensor::from_slice(&data, &[3, 5, 7], &Device::cpu()).unwrap(),
        Tensor::from_slice(&data, &[3, 5, 7], &device).unwrap(),
    );
    let view = |t: &Tensor| t.transpose(0, 2).unwrap().narrow(0, 2, 3).unwrap().select(1, 4).unwrap();
    assert_eq!(view(&there).to_f32_vec().unwrap(), view(&here).to_f32_vec().unwrap());
    assert_eq!(view(&there).to_device(&device).unwrap().shape(), [3, 3]);
    let moved = view(&there).to_device(&device).unwrap().to_f32_vec().unwrap();
    assert_eq!(moved, view(&here).to_f32_vec().unwrap());
    let error = there.slice::<f32>().unwrap_err().to_string();
    assert!(error.contains(&device.to_string()) && error.contains("to_device"), "{error}");
}

#[test]
fn buffers_are_copied_and_cleared_on_their_device() {
    for device in devices() {
        let data: Vec<u8> = (0..97).collect();
        let (mut a, mut b) = (device.alloc(97).unwrap(), device.alloc(59).unwrap());
        a.write(0, &data).unwrap();
        b.copy_from(3, &a, 31, 50).unwrap();
        let mut found = [0xee; 59];
        b.read(0, &mut found).unwrap();
        let expected: Vec<u8> = [0; 3].into_iter().chain(31..81).chain([0; 6]).collect();
        assert_eq!(found[..], expected, "{device}");
        b.zero().unwrap();
        b.read(0, &mut found).unwrap();
        assert_eq!(found, [0; 59], "{device}");
        assert!(matches!(b.copy_from(10, &a, 0, 50), Err(Error::Shape { .. })));
        assert!(matches!(b.copy_from(0, &a, usize::MAX, 2), Err(Error::Shape { .. })));
    }
    let (mut here, there) = (Device::cpu().alloc(8).unwrap(), support::device().alloc(8).unwrap());
    assert!(matches!(here.copy_from(0, &there, 0, 8), Err(Error::Device { .. })));
}

#[test]
fn a_graph_owns_its_memory_and_runs_as_often_as_asked() {
    let device = support::device().new_stream().unwrap();
    let mut x = Tensor::from_slice(&random(1025), &[1025], &device).unwrap();
    let y = Tensor::from_slice(&vec![0.5f32; 1025], &[1025], &device).unwrap();
    let graph = device.capture(|| nn::add(&mut x, &y).and_then(|()| nn::add(&mut x, &y))).unwrap();
    assert_eq!(x.to_f32_vec().unwrap(), random(1025), "captured, not run");
    let held = device.memory().total.current;
    drop(y);
    assert_eq!(device.memory().total.current, held, "the graph holds what it reads");
    graph.launch().unwrap();
    graph.launch().unwrap();
    let expected: Vec<f32> = random(1025).iter().map(|x| x + 0.5 + 0.5 + 0.5 + 0.5).collect();
    assert_eq!(x.to_f32_vec().unwrap(), expected);
    drop(graph);
    assert_eq!(device.memory().total.current, held - 4 * 1025);
}

#[test]
fn memory_is_on_the_account_of_its_device() {
    for device in devices() {
        let before = device.memory();
        let cache = device.accounting(Purpose::Cache);
        let held = Tensor::zeros(&[1000], Dtype::F32, &cache).unwrap();
        assert_eq!(device.memory().of(Purpose::Cache).current, before.of(Purpose::Cache).current + 4000);
        drop(held);
        assert_eq!(device.memory().of(Purpose::Cache).current, before.of(Purpose::Cache).current);
    }
}

#[test]
fn memory_of_others_is_used_in_place_and_let_go_with_the_last_view() {
    struct Owner(Vec<f32>, Arc<AtomicBool>);
    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }
    let gone = Arc::new(AtomicBool::new(false));
    let owner = Box::new(Owner(random(40), Arc::clone(&gone)));
    let (data, address) = (owner.0.clone(), Address::new(owner.0.as_ptr() as u64));
    let device = Device::cpu();
    // SAFETY: the vector is alive until the tensor drops it; the longest index is 4 * 9 + 3 = 39.
    let tensor = unsafe { Tensor::from_external(address, Dtype::F32, &[4, 5], &[9, 2], &device, owner) }.unwrap();
    let row = tensor.select(0, 2).unwrap();
    drop(tensor);
    assert!(!gone.load(Ordering::SeqCst), "a view is left");
    assert_eq!(row.to_f32_vec().unwrap(), (0..5).map(|i| data[2 * 9 + 2 * i]).collect::<Vec<_>>());
    assert_eq!(device.memory().total.current, 0, "memory of others is on nobody's account");
    drop(row);
    assert!(gone.load(Ordering::SeqCst));
    // SAFETY: refused before the address is followed.
    let refused = unsafe { Tensor::from_external(address, Dtype::F32, &[4, 5], &[9], &device, Box::new(())) };
    assert!(matches!(refused, Err(Error::Shape { .. })));
}

#[test]
fn events_order_streams_and_tell_time() {
    for device in devices() {
        let other = device.new_stream().unwrap();
        assert_eq!(device, other);
        let start = device.record().unwrap();
        let tensor = Tensor::from_slice(&random(1025), &[1025], &device).unwrap();
        let ready = device.record().unwrap();
        other.wait(&ready).unwrap();
        other.synchronize().unwrap();
        assert_eq!(tensor.to_f32_vec().unwrap(), random(1025));
        assert!(ready.since(&start).unwrap().as_secs() < 60);
    }
    let (here, there) = (Device::cpu(), support::device());
    let error = here.wait(&there.record().unwrap()).unwrap_err().to_string();
    assert!(error.contains("cpu") && error.contains(&there.to_string()), "{error}");
}

#[test]
fn copies_and_allocations_are_refused_inside_a_capture() {
    let device = support::device();
    let tensor = Tensor::from_slice(&random(9), &[9], &device).unwrap();
    let graph = device.capture(|| {
        for error in [
            device.alloc(64).unwrap_err(),
            tensor.to_f32_vec().unwrap_err(),
            device.synchronize().unwrap_err(),
            device.capture(|| Ok(())).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("while a graph is captured"), "{text}");
        }
        Ok(())
    });
    graph.unwrap().launch().unwrap();
    // A failed capture leaves the device as it was.
    let failed = device.capture(|| Err(device.alloc(8).unwrap_err()));
    assert!(failed.unwrap_err().to_string().contains("while a graph is captured"));
    assert_eq!(tensor.to_f32_vec().unwrap(), random(9));
    let cpu = Device::cpu().capture(|| Ok(())).unwrap_err().to_string();
    assert!(cpu.contains("cpu"), "{cpu}");
}
