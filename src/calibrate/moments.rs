//! Uncentred second moments, gathered while a model runs.

use crate::{Error, Result, Tensor, cache::Layout, model::Observer};

/// Second moments of one layer, summed over tokens; each matrix is [head_dim, head_dim] f64, one for each key-value head.
#[derive(Clone, Debug)]
pub struct LayerMoments {
    /// Keys before RoPE.
    pub keys: Vec<f64>,
    /// Keys after RoPE.
    pub rotated_keys: Vec<f64>,
    /// Values.
    pub values: Vec<f64>,
    /// Queries before RoPE, all query heads of the group together.
    pub queries: Vec<f64>,
    /// Queries after RoPE, likewise.
    pub rotated_queries: Vec<f64>,
    /// Sums of keys before RoPE, after RoPE and of values: [n_kv_heads, head_dim] each.
    pub sums: [Vec<f64>; 3],
}

/// Second moments of every layer, an [`Observer`] of forward passes whose tokens start at position 0.
#[derive(Clone, Debug)]
pub struct Moments {
    layout: Layout,
    /// Layers in order.
    pub layers: Vec<LayerMoments>,
    /// Tokens seen.
    pub tokens: usize,
    /// Longest window seen, in tokens.
    pub window: usize,
    failure: Option<String>,
}

impl Moments {
    /// Nothing seen yet.
    pub fn new(layout: &Layout) -> Self {
        let matrices = || vec![0.0; layout.n_kv_heads * super::square(layout)];
        let rows = || vec![0.0; layout.n_kv_heads * layout.head_dim];
        let layer = || LayerMoments {
            keys: matrices(),
            rotated_keys: matrices(),
            values: matrices(),
            queries: matrices(),
            rotated_queries: matrices(),
            sums: [rows(), rows(), rows()],
        };
        let layers = (0..layout.n_layers).map(|_| layer()).collect();
        Self { layout: layout.clone(), layers, tokens: 0, window: 0, failure: None }
    }

    /// What the model asks of its caches.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Ends a window of `tokens`.
    pub(super) fn finish(mut self, tokens: usize) -> Result<Self> {
        self.tokens += tokens;
        self.window = self.window.max(tokens);
        match self.failure.take() {
            Some(what) => Err(Error::Numeric { op: "calibrate", what }),
            None => Ok(self),
        }
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Self) {
        let sum = |to: &mut Vec<f64>, from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        for (to, from) in self.layers.iter_mut().zip(&other.layers) {
            sum(&mut to.keys, &from.keys);
            sum(&mut to.rotated_keys, &from.rotated_keys);
            sum(&mut to.values, &from.values);
            sum(&mut to.queries, &from.queries);
            sum(&mut to.rotated_queries, &from.rotated_queries);
            to.sums.iter_mut().zip(&from.sums).for_each(|(to, from)| sum(to, from));
        }
        self.tokens += other.tokens;
        self.window = self.window.max(other.window);
    }

    fn gather(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
        let rotate = |x: &Tensor| match &self.layout.rope {
            Some(rope) => rope.rotate(x, 0),
            None => Ok(x.clone()),
        };
        let (rotated_q, rotated_k) = (rotate(q)?, rotate(k)?);
        let (heads, to) = (self.layout.n_kv_heads, &mut self.layers[layer]);
        for (x, to) in [
            (k, &mut to.keys),
            (&rotated_k, &mut to.rotated_keys),
            (v, &mut to.values),
            (q, &mut to.queries),
            (&rotated_q, &mut to.rotated_queries),
        ] {
            add_second_moments(x, heads, to)?;
        }
        for (x, sums) in [k, &rotated_k, v].into_iter().zip(&mut to.sums) {
            let rows = x.to_f32_vec()?;
            for row in rows.chunks_exact(sums.len().max(1)) {
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        }
        Ok(())
    }
}

impl Observer for Moments {
    fn qkv(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) {
        if let Err(error) = self.gather(layer, q, k, v) {
            self.failure = Some(error.to_string());
        }
    }
}

/// to[h] += sum over tokens and the heads of group h of x x', for x [tokens, heads, head_dim] f32.
fn add_second_moments(x: &Tensor, groups: usize, to: &mut [f64]) -> Result<()> {
    let &[tokens, heads, head_dim] = x.shape() else {
        return Err(Error::shape("calibrate", format!("{:?}", x.shape()), "[tokens, heads, head_dim]"));
    };
    let rows = x.to_f32_vec()?;
    for (group, to) in to.chunks_exact_mut((head_dim * head_dim).max(1)).enumerate() {
        for head in group * heads / groups..(group + 1) * heads / groups {
            let of_head: Vec<f64> = (0..tokens)
                .flat_map(|token| &rows[(token * heads + head) * head_dim..][..head_dim])
                .map(|x| f64::from(*x))
                .collect();
            let rows = faer::MatRef::from_row_major_slice(&of_head, tokens, head_dim);
            let out = faer::MatMut::from_row_major_slice_mut(to, head_dim, head_dim);
            faer::linalg::matmul::matmul(out, faer::Accum::Add, rows.transpose(), rows, 1.0, faer::Par::Seq);
        }
    }
    Ok(())
}
