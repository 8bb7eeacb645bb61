//! Philox4x32-10, the counter-based generator behind every random number in this crate.
//!
//! Keyed by (seed, matrix, element), so that a value depends neither on thread counts nor on what else is in a batch.
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

/// Ten rounds of Philox4x32.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// The random numbers of one matrix under one seed.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    seed: u64,
    matrix: u64,
}

impl Stream {
    /// Numbers for `matrix` under `seed`.
    pub fn new(seed: u64, matrix: u64) -> Self {
        Self { seed, matrix }
    }

    fn words(self, block: u64) -> [u32; 4] {
        let counter = [block as u32, (block >> 32) as u32, self.matrix as u32, (self.matrix >> 32) as u32];
        philox4x32(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// 32 random bits for `element`.
    pub fn bits(self, element: u64) -> u32 {
        self.words(element / 4)[(element % 4) as usize]
    }

    /// A number in (0, 1) for `element`, never 0 or 1.
    pub fn uniform(self, element: u64) -> f32 {
        unit(self.bits(element))
    }

    /// A standard normal number for `element` (Box-Muller over the pair that `element` belongs to).
    pub fn normal(self, element: u64) -> f32 {
        let words = self.words(element / 4);
        let pair = (element % 4) as usize & 2;
        let radius = (-2.0 * unit(words[pair]).ln()).sqrt();
        let angle = std::f32::consts::TAU * unit(words[pair + 1]);
        if element.is_multiple_of(2) { radius * angle.cos() } else { radius * angle.sin() }
    }
}

fn unit(bits: u32) -> f32 {
    ((bits >> 9) as f32 + 0.5) * (1.0 / (1 << 23) as f32)
}
