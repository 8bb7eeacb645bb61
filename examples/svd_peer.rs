//! A persistent child for `tools/peers/svd.py`: reads commands on stdin, answers each by one line on stdout.
//!
//! `device DEVICE`: where to work. `load FILE`: takes every tensor [.., m, n] of a safetensors file. `options THREADS MODE
//! OUTPUT`: what the next commands use. `time TENSOR RANK`: factorizes and prints the seconds until the device is done.
//! `faer TENSOR`: prints the seconds of faer's `thin_svd` of each matrix. `fma`: prints the rate of a multiply-add loop, in
//! flops per second. `write FILE`: writes u, s and v of the last factorization. What cannot be done is answered by `refused: WHY`.

use std::{
    collections::HashMap,
    error::Error,
    hint::black_box,
    io::{BufRead, Write},
    time::{Duration, Instant},
};

use faer::MatRef;
use half::{bf16, f16};
use lowkey::{
    Device, Scratch, Tensor,
    bench::roofline,
    svd::{self, Mode, Options, Output, Rank, Svd},
};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

type Answer = Result<String, Box<dyn Error>>;

struct Child {
    device: Device,
    tensors: HashMap<String, Tensor>,
    pool: ThreadPool,
    options: Options,
    scratch: Scratch,
    /// The last result, and what it was made of, how, and at which rank.
    result: Option<(String, Svd)>,
}

impl Child {
    fn new(device: Device) -> Result<Self, Box<dyn Error>> {
        let (pool, scratch) = (ThreadPoolBuilder::new().num_threads(1).build()?, Scratch::new(&device));
        Ok(Self { device, tensors: HashMap::new(), pool, options: Options::default(), scratch, result: None })
    }

    fn answer(&mut self, line: &str) -> Answer {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["device", device] => {
                *self = Self::new(device.parse()?)?;
                Ok("ready".to_owned())
            }
            ["load", path] => self.load(path),
            ["options", threads, mode, output] => self.set_options(threads.parse()?, mode, output),
            ["time", tensor, rank] => self.time(tensor, rank.parse()?),
            ["faer", tensor] => self.time_faer(tensor),
            ["fma"] => Ok(self.pool.install(|| roofline::flops_per_second(Duration::from_millis(50))).to_string()),
            ["write", path] => self.write(path),
            _ => Err(format!("cannot do {line:?}").into()),
        }
    }

    fn load(&mut self, path: &str) -> Answer {
        let bytes = std::fs::read(path)?;
        for (name, view) in SafeTensors::deserialize(&bytes)?.tensors() {
            self.tensors.insert(name, tensor(&view, &self.device)?);
        }
        Ok("loaded".to_owned())
    }

    fn set_options(&mut self, threads: usize, mode: &str, output: &str) -> Answer {
        if self.pool.current_num_threads() != threads {
            self.pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        }
        self.options.mode = match mode {
            "safe" => Mode::Safe,
            "fast" => Mode::Fast,
            _ => return Err(format!("no mode {mode}").into()),
        };
        self.options.output = match output {
            "usv" => Output::Usv,
            "latent" => Output::LatentDecoder,
            "qb" => Output::Qb,
            "values" => Output::ValuesOnly,
            _ => return Err(format!("no output {output}").into()),
        };
        Ok("set".to_owned())
    }

    fn input(&self, name: &str) -> Result<&Tensor, String> {
        self.tensors.get(name).ok_or_else(|| format!("no tensor {name}"))
    }

    fn time(&mut self, name: &str, rank: usize) -> Answer {
        let (a, key) = (self.input(name)?.clone(), format!("{name} {rank} {:?}", self.options.output));
        let mut out = match self.result.take() {
            Some((made, out)) if made == key => out,
            _ => Svd::zeros(a.shape(), rank, &self.options, &self.device)?,
        };
        let (options, scratch) = (&self.options, &mut self.scratch);
        let seconds = self.pool.install(|| {
            let start = Instant::now();
            svd::truncated_into(&a, Rank::Fixed(rank), options, &mut out, scratch)?;
            // Waits for the device.
            out.verdicts()?;
            Ok::<_, lowkey::Error>(start.elapsed().as_secs_f64())
        })?;
        self.result = Some((key, out));
        Ok(seconds.to_string())
    }

    fn time_faer(&self, name: &str) -> Answer {
        let a = self.input(name)?;
        let &[.., rows, columns] = a.shape() else { return Err("no matrices".into()) };
        let data = a.to_f32_vec()?;
        let seconds = self.pool.install(|| {
            let start = Instant::now();
            data.par_chunks(rows * columns).for_each(|matrix| {
                drop(black_box(MatRef::from_row_major_slice(matrix, rows, columns).thin_svd()));
            });
            start.elapsed().as_secs_f64()
        });
        Ok(seconds.to_string())
    }

    fn write(&self, path: &str) -> Answer {
        let (_, svd) = self.result.as_ref().ok_or("nothing factorized yet")?;
        let parts = [("u", &svd.u), ("s", &svd.s), ("v", &svd.v)];
        let data = parts.map(|(_, tensor)| tensor.to_f32_vec());
        let mut views = Vec::new();
        for ((name, tensor), data) in parts.iter().zip(&data) {
            let bytes = bytemuck::cast_slice(data.as_ref().map_err(ToString::to_string)?);
            views.push((name, TensorView::new(Dtype::F32, tensor.shape().to_vec(), bytes)?));
        }
        safetensors::serialize_to_file(views, None, path.as_ref())?;
        Ok("written".to_owned())
    }
}

fn tensor(view: &TensorView<'_>, device: &Device) -> Result<Tensor, Box<dyn Error>> {
    let (bytes, shape, host) = (view.data(), view.shape(), Device::cpu());
    let halves = || bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
    let tensor = match view.dtype() {
        Dtype::F32 => {
            let data: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            Tensor::from_slice(&data, shape, &host)?
        }
        Dtype::F16 => Tensor::from_slice(&halves().map(f16::from_bits).collect::<Vec<_>>(), shape, &host)?,
        Dtype::BF16 => Tensor::from_slice(&halves().map(bf16::from_bits).collect::<Vec<_>>(), shape, &host)?,
        other => return Err(format!("tensors of {other:?}").into()),
    };
    Ok(tensor.to_device(device)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut child = Child::new(Device::cpu())?;
    for line in std::io::stdin().lock().lines() {
        let answer = child.answer(&line?).unwrap_or_else(|why| format!("refused: {}", why.to_string().replace('\n', " ")));
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
