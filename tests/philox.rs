//! Philox matches the published known answers and its normals are normal.

use lowkey::philox::{Stream, philox4x32};

#[test]
fn known_answers_of_random123() {
    assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let pi = philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
    assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn normals_have_the_moments_of_a_normal() {
    let stream = Stream::new(7, 3);
    let n = 200_000u64;
    let mut moments = [0.0f64; 4];
    for i in 0..n {
        let x = f64::from(stream.normal(i));
        for (p, m) in moments.iter_mut().enumerate() {
            *m += x.powi(p as i32 + 1) / n as f64;
        }
    }
    for (found, expected) in moments.iter().zip([0.0, 1.0, 0.0, 3.0]) {
        assert!((found - expected).abs() < 0.03, "{moments:?}");
    }
}

#[test]
fn matrices_and_seeds_give_unrelated_numbers() {
    let n = 50_000;
    let correlation = |a: Stream, b: Stream| (0..n).map(|i| a.normal(i) * b.normal(i)).sum::<f32>() / n as f32;
    assert!(correlation(Stream::new(1, 0), Stream::new(1, 1)).abs() < 0.02);
    assert!(correlation(Stream::new(1, 0), Stream::new(2, 0)).abs() < 0.02);
}
