// Householder reduction of a symmetric matrix to tridiagonal form, one thread block a matrix (Golub and Van Loan,
// "Matrix Computations", section 8.3). The update by one reflection and the product with the next are one pass, so each
// step has two barriers.
#pragma once
#include "svd/matrix.cuh"

// Squared length below which a row is taken to be reduced already.
template <class Real> constexpr Real LEAST_SQUARES;
template <> constexpr float LEAST_SQUARES<float> = 1.17549435e-38f;
template <> constexpr double LEAST_SQUARES<double> = 2.2250738585072014e-308;

// In f32 to an ulp or two, which is all that a reflection needs.
__device__ __forceinline__ float root(float x) { return x > 0 ? x * rsqrtf(x) : 0; }
__device__ __forceinline__ double root(double x) { return sqrt(x); }
__device__ __forceinline__ float reciprocal(float x) { return __fdividef(1.0f, x); }
__device__ __forceinline__ double reciprocal(double x) { return 1 / x; }

// Vectors of MAX_WIDTH in shared memory. The first three are what the reduction leaves.
template <class Real> struct Tridiagonal {
    int n;
    Real *diagonal, *off, *inverse_heights;
    Real *v, *next, *w, *q, *row;
    Real* reflections;  // row i of the lower triangle has the vector of reflection i

    __device__ __forceinline__ Tridiagonal(int n, Real* shared, Real* reflections)
        : n(n), diagonal(shared), off(shared + MAX_WIDTH), inverse_heights(shared + 2 * MAX_WIDTH),
          v(shared + 3 * MAX_WIDTH), next(shared + 4 * MAX_WIDTH), w(shared + 5 * MAX_WIDTH), q(shared + 6 * MAX_WIDTH),
          row(shared + 7 * MAX_WIDTH), reflections(reflections) {}
};
constexpr int TRIDIAGONAL_VECTORS = 8;

// Aligned elements that lie side by side in shared memory; of more than are asked for, segments of 16 bytes.
template <int Wanted, int Count, class Real>
__device__ __forceinline__ void load_vector(Real (&to)[Count], const Real* from) {
    struct alignas(16) Words {
        Real at[16 / sizeof(Real)];
    };
#pragma unroll
    for (int i = 0; i < Wanted; i += 16 / sizeof(Real)) {
        const Words words = *reinterpret_cast<const Words*>(from + i);
#pragma unroll
        for (int j = 0; j < 16 / int(sizeof(Real)); j++) to[i + j] = words.at[j];
    }
}

template <class Real> __device__ __forceinline__ Real lanes_sum(Real x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

// A matrix of up to 128 rows in registers: thread (y, x) of a square has the entries (16 a + y, 16 b + x), so that what
// is left of it stays spread over all threads. Vectors in shared memory are ordered alike.
template <class Real> struct RegisterMatrix {
    static constexpr int SIDE = 16, EACH = MAX_WIDTH / SIDE;
    Real entries[EACH][EACH];

    static __device__ __forceinline__ int place(int j) { return j % SIDE * EACH + j / SIDE; }
    static __device__ __forceinline__ int index(int place) { return place % EACH * SIDE + place / EACH; }

    // Takes the entries, scaled, with zeros beyond the matrix; shows the last row. Those of a row are read whatever becomes
    // of them and before anything is written, or they would wait for each other.
    template <class Entry>
    __device__ __forceinline__ void load(const Tridiagonal<Real>& at, double scale, const Entry& entry) {
        const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE, last = at.n - 1;
#pragma unroll
        for (int a = 0; a < EACH; a++) {
            double row[EACH];
#pragma unroll
            for (int b = 0; b < EACH; b++) {
                const int i = min(a * SIDE + y, last), j = min(b * SIDE + x, last);
                row[b] = entry(max(i, j), min(i, j));
            }
#pragma unroll
            for (int b = 0; b < EACH; b++) {
                entries[a][b] = max(a * SIDE + y, b * SIDE + x) < at.n ? Real(row[b] * scale) : Real(0);
            }
            show(at, a, last);
        }
    }

    // Shows a row where it is the one that is asked for.
    __device__ __forceinline__ void show(const Tridiagonal<Real>& at, int a, int row) {
        const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
        if (a * SIDE + y != row) return;
#pragma unroll
        for (int b = 0; b < EACH; b++) at.row[x * EACH + b] = entries[a][b];
    }

    // Subtracts v w' + w v' in the first `count` rows and columns, which `Squares` squares of 16 hold, leaves the product
    // with `next` in q, and shows the last of the rows.
    template <int Squares> __device__ __forceinline__ void step(const Tridiagonal<Real>& at, int count) {
        const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
        Real v[EACH], w[EACH], next[EACH], sums[EACH] = {};
        load_vector<Squares>(v, at.v + x * EACH);
        load_vector<Squares>(w, at.w + x * EACH);
        load_vector<Squares>(next, at.next + x * EACH);
#pragma unroll
        for (int a = 0; a < Squares; a++) {
            const Real v_row = at.v[y * EACH + a], w_row = at.w[y * EACH + a];
#pragma unroll
            for (int b = 0; b < Squares; b++) {
                entries[a][b] -= v_row * w[b];
                entries[a][b] -= w_row * v[b];
                sums[a] += entries[a][b] * next[b];
            }
        }
        show(at, Squares - 1, count - 1);
        scatter_sums(sums);
        if (x % 2 == 0) at.q[y * EACH + x / 2] = sums[0];
    }

    // Sums over 16 lanes: the first of `sums` becomes that of sum lane / 2.
    static __device__ __forceinline__ void scatter_sums(Real (&sums)[EACH]) {
#pragma unroll
        for (int kept = EACH / 2; kept > 0; kept /= 2) {
            const int distance = 2 * kept;
            const bool upper = threadIdx.x & distance;
#pragma unroll
            for (int i = 0; i < kept; i++) {
                const Real sent = upper ? sums[i] : sums[i + kept];
                sums[i] = (upper ? sums[i + kept] : sums[i]) + __shfl_xor_sync(0xffffffffu, sent, distance);
            }
        }
        sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], 1);
    }
};

// One warp's part of step i. From q, the product of the last reflection's vector v, it makes w, which completes the
// update; and from row i, brought up to date, the next vector.
template <class Real> __device__ __forceinline__ void next_reflection(const Tridiagonal<Real>& at, int i) {
    using Matrix = RegisterMatrix<Real>;
    constexpr int EACH = MAX_WIDTH / 32;
    const int first = lane_index() * EACH, place = Matrix::place(i), place_before = Matrix::place(max(i - 1, 0));
    const Real inverse = i + 1 < at.n ? at.inverse_heights[i + 1] : Real(0);
    Real q[EACH], v[EACH], row[EACH];
    load_vector<EACH>(q, at.q + first);
    load_vector<EACH>(v, at.v + first);
    load_vector<EACH>(row, at.row + first);
    Real product = 0;
#pragma unroll
    for (int c = 0; c < EACH; c++) product += q[c] * v[c];
    const Real shift = lanes_sum(product) * inverse * inverse / 2;
    const Real v_here = at.v[place], w_here = at.q[place] * inverse - shift * v_here;
    const Real w_before = at.q[place_before] * inverse - shift * at.v[place_before];
    const Real last = at.row[place_before] - (v_here * w_before + w_here * at.v[place_before]);
    Real rest = 0;
#pragma unroll
    for (int c = 0; c < EACH; c++) {
        const int j = Matrix::index(first + c);
        const Real w = j <= i ? q[c] * inverse - shift * v[c] : Real(0);
        at.w[first + c] = w;
        row[c] = j <= i ? row[c] - (v_here * w + w_here * v[c]) : Real(0);
        if (j == i) at.diagonal[i] = row[c];
        if (j < i - 1) rest += row[c] * row[c];
    }
    rest = lanes_sum(rest);
    if (i == 0) return;
    const bool reflects = rest >= LEAST_SQUARES<Real>;
    const Real length = root(rest + last * last), kept = last > 0 ? -length : length;
    if (lane_index() == 0) {
        at.off[i - 1] = reflects ? kept : last;
        at.inverse_heights[i] = reflects ? reciprocal(rest + last * (last - kept)) : Real(0);
    }
#pragma unroll
    for (int c = 0; c < EACH; c++) {
        const int j = Matrix::index(first + c);
        const Real x = j == i - 1 ? last - kept : row[c];
        at.next[first + c] = reflects && j < i ? x : Real(0);
    }
}

// Keeps the vector of reflection i, which is v by now: one warp's work while another one makes the next.
template <class Real> __device__ __forceinline__ void keep_reflection(const Tridiagonal<Real>& at, int i) {
    for (int j = lane_index(); j < i; j += 32) at.reflections[packed(i, j)] = at.v[RegisterMatrix<Real>::place(j)];
}

// A step with what `Squares` or fewer squares of 16 a side hold.
template <int Squares, class Real>
__device__ __forceinline__ void step_within(RegisterMatrix<Real>& matrix, const Tridiagonal<Real>& at, int count) {
    if constexpr (Squares > 1) {
        if (count <= (Squares - 1) * RegisterMatrix<Real>::SIDE) return step_within<Squares - 1>(matrix, at, count);
    }
    matrix.template step<Squares>(at, count);
}

// Reduces the matrix. Threads see what is left after the next barrier.
template <class Real> __device__ __forceinline__ void reduce(RegisterMatrix<Real>& matrix, Tridiagonal<Real> at) {
    for (int t = threadIdx.x; t < MAX_WIDTH; t += THREADS) at.v[t] = 0, at.q[t] = 0;
    __syncthreads();
    for (int i = at.n - 1; i > 0; i--) {
        if (warp_index() == i % WARPS) {
            next_reflection(at, i);
        } else if (warp_index() == (i + WARPS / 2) % WARPS && i + 1 < at.n) {
            keep_reflection(at, i + 1);
        }
        __syncthreads();
        step_within<RegisterMatrix<Real>::EACH>(matrix, at, i);
        __syncthreads();
        Real* const old = at.v;
        at.v = at.next;
        at.next = old;
    }
    if (warp_index() == 0) {
        next_reflection(at, 0);
    } else if (warp_index() == 1 && at.n > 1) {
        keep_reflection(at, 1);
    }
    __syncthreads();
}
