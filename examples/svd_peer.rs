//! A persistent child for `tools/peers/svd.py`: reads commands on stdin, answers on stdout.
//!
//! `load FILE` reads the tensor `a` (f32 [.., m, n]) of a safetensors file, `time RANK` factorizes it and prints the
//! seconds, `write FILE` writes u, s and v of the last factorization. Each command is answered by one line.

use std::{
    error::Error,
    io::{BufRead, Write},
    time::Instant,
};

use lowkey::{
    Device, Scratch, Tensor,
    svd::{self, Options, Rank, Svd},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

fn load(path: &str) -> Result<Tensor, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let view = file.tensor("a")?;
    let data: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Ok(Tensor::from_slice(&data, view.shape(), &Device::cpu())?)
}

fn write(svd: &Svd, path: &str) -> Result<(), Box<dyn Error>> {
    let mut views = Vec::new();
    for (name, tensor) in [("u", &svd.u), ("s", &svd.s), ("v", &svd.v)] {
        let bytes: &[u8] = bytemuck::cast_slice(tensor.slice::<f32>()?);
        views.push((name, TensorView::new(Dtype::F32, tensor.shape().to_vec(), bytes)?));
    }
    Ok(safetensors::serialize_to_file(views, None, path.as_ref())?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut scratch = Scratch::new(&Device::cpu());
    let (mut input, mut output): (Option<Tensor>, Option<Svd>) = (None, None);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match (command, &input, &mut output) {
            ("load", ..) => {
                (input, output) = (Some(load(argument)?), None);
                "loaded".to_owned()
            }
            ("time", Some(a), out) => {
                let rank: usize = argument.parse()?;
                let fits = out.as_ref().is_some_and(|svd| svd.s.shape().last() == Some(&rank));
                let mut svd = match out.take().filter(|_| fits) {
                    Some(svd) => svd,
                    None => Svd::zeros(a.shape(), rank, &Options::default(), &a.device())?,
                };
                let start = Instant::now();
                svd::truncated_into(a, Rank::Fixed(rank), &Options::default(), &mut svd, &mut scratch)?;
                let seconds = start.elapsed().as_secs_f64();
                *out = Some(svd);
                seconds.to_string()
            }
            ("write", _, Some(svd)) => {
                write(svd, argument)?;
                "written".to_owned()
            }
            _ => return Err(format!("cannot do {line:?} now").into()),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
