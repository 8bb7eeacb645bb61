//! Tables, JSON and plots.
