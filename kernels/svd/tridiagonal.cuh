// Householder reduction of a symmetric matrix to tridiagonal form, one thread block a matrix (Golub and Van Loan,
// "Matrix Computations", section 8.3). The update by one reflection and the product with the next are one pass, so each
// step has two barriers.
#pragma once
#include "svd/matrix.cuh"

// Squared length below which a row is taken to be reduced already.
template <class Real> constexpr Real LEAST_SQUARES;
template <> constexpr float LEAST_SQUARES<float> = 1.17549435e-38f;
template <> constexpr double LEAST_SQUARES<double> = 2.2250738585072014e-308;

// Vectors of `length` in shared memory. The first three are what the reduction leaves.
template <class Real> struct Tridiagonal {
    int n, length;
    Real *diagonal, *off, *inverse_heights;
    Real *v, *next, *w, *q, *row;
    Real* reflections;  // row i of the lower triangle has the vector of reflection i

    __device__ __forceinline__ Tridiagonal(int n, int length, Real* shared, Real* reflections)
        : n(n), length(length), diagonal(shared), off(shared + length), inverse_heights(shared + 2 * length),
          v(shared + 3 * length), next(shared + 4 * length), w(shared + 5 * length), q(shared + 6 * length),
          row(shared + 7 * length), reflections(reflections) {}
};
constexpr int TRIDIAGONAL_VECTORS = 8;

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

    static __device__ __forceinline__ int length(int) { return MAX_WIDTH; }
    static __device__ __forceinline__ int place(int j) { return j % SIDE * EACH + j / SIDE; }
    static __device__ __forceinline__ int index(int place) { return place % EACH * SIDE + place / EACH; }

    // Takes the entries, with zeros beyond the matrix; shows the last row.
    template <class Entry> __device__ __forceinline__ void load(const Tridiagonal<Real>& at, const Entry& entry) {
        const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
#pragma unroll
        for (int a = 0; a < EACH; a++) {
#pragma unroll
            for (int b = 0; b < EACH; b++) {
                const int i = a * SIDE + y, j = b * SIDE + x;
                const Real value = i < at.n && j < at.n ? entry(max(i, j), min(i, j)) : Real(0);
                entries[a][b] = value;
                if (i == at.n - 1) at.row[x * EACH + b] = value;
            }
        }
    }

    static __device__ __forceinline__ void load_vector(Real (&to)[EACH], const Real* from) {
        struct alignas(16) Words {
            Real at[16 / sizeof(Real)];
        };
#pragma unroll
        for (int i = 0; i < EACH; i += 16 / sizeof(Real)) {
            const Words words = *reinterpret_cast<const Words*>(from + i);
#pragma unroll
            for (int j = 0; j < 16 / int(sizeof(Real)); j++) to[i + j] = words.at[j];
        }
    }

    // Subtracts v w' + w v' in the first `count` rows and columns, leaves the product with `next` in q, and shows the
    // last of the rows.
    __device__ __forceinline__ void step(const Tridiagonal<Real>& at, int count) {
        const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
        Real v[EACH], w[EACH], next[EACH], sums[EACH];
        load_vector(v, at.v + x * EACH);
        load_vector(w, at.w + x * EACH);
        load_vector(next, at.next + x * EACH);
#pragma unroll
        for (int a = 0; a < EACH; a++) {
            sums[a] = 0;
            if (a * SIDE >= count) continue;
            const Real v_row = at.v[y * EACH + a], w_row = at.w[y * EACH + a];
#pragma unroll
            for (int b = 0; b < EACH; b++) {
                if (b * SIDE >= count) break;
                const Real value = entries[a][b] - (v_row * w[b] + w_row * v[b]);
                entries[a][b] = value;
                sums[a] += value * next[b];
                if (a * SIDE + y == count - 1) at.row[x * EACH + b] = value;
            }
        }
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

// A matrix of any size in global memory, in rows of n.
template <class Real> struct StoredMatrix {
    Real* entries;

    static __device__ __forceinline__ int length(int n) { return n; }
    static __device__ __forceinline__ int place(int j) { return j; }
    static __device__ __forceinline__ int index(int place) { return place; }

    template <class Entry> __device__ __forceinline__ void load(const Tridiagonal<Real>& at, const Entry& entry) {
        for (int i = warp_index(); i < at.n; i += WARPS) {
            for (int j = lane_index(); j < at.n; j += 32) {
                const Real value = entry(max(i, j), min(i, j));
                entries[int64_t(i) * at.n + j] = value;
                if (i == at.n - 1) at.row[j] = value;
            }
        }
    }

    __device__ __forceinline__ void step(const Tridiagonal<Real>& at, int count) {
        for (int i = warp_index(); i < count; i += WARPS) {
            Real* const entry = entries + int64_t(i) * at.n;
            const Real v = at.v[i], w = at.w[i];
            Real sum = 0;
#pragma unroll 4
            for (int j = lane_index(); j < count; j += 32) {
                const Real x = entry[j] - (v * at.w[j] + w * at.v[j]);
                entry[j] = x;
                if (i == count - 1) at.row[j] = x;
                sum += x * at.next[j];
            }
            sum = lanes_sum(sum);
            if (lane_index() == 0) at.q[i] = sum;
        }
    }
};

// One warp's part of step i. From q, the product of the last reflection's vector v, it makes w, which completes the
// update; and from row i, brought up to date, the next vector.
template <class Stored, class Real> __device__ __forceinline__ void next_reflection(const Tridiagonal<Real>& at, int i) {
    const Real inverse = i + 1 < at.n ? at.inverse_heights[i + 1] : Real(0);
    Real product = 0;
#pragma unroll 4
    for (int t = lane_index(); t < at.length; t += 32) product += at.q[t] * at.v[t];
    const Real shift = lanes_sum(product) * inverse * inverse / 2;
    const int place = Stored::place(i), place_before = Stored::place(max(i - 1, 0));
    const Real v = at.v[place], w = at.q[place] * inverse - shift * v;
    const Real w_before = at.q[place_before] * inverse - shift * at.v[place_before];
    const Real last = at.row[place_before] - (v * w_before + w * at.v[place_before]);
    Real rest = 0;
#pragma unroll 4
    for (int t = lane_index(); t < at.length; t += 32) {
        const int j = Stored::index(t);
        if (j > i) {
            at.w[t] = 0;
            at.next[t] = 0;
            continue;
        }
        const Real w_here = at.q[t] * inverse - shift * at.v[t];
        const Real x = at.row[t] - (v * w_here + w * at.v[t]);
        at.w[t] = w_here;
        at.next[t] = j < i ? x : Real(0);
        if (j == i) at.diagonal[i] = x;
        if (j < i - 1) rest += x * x;
    }
    rest = lanes_sum(rest);
    if (i == 0) return;
    const bool reflects = rest >= LEAST_SQUARES<Real>;
    const Real length = sqrt(rest + last * last), kept = last > 0 ? -length : length;
    if (lane_index() == 0) {
        at.off[i - 1] = reflects ? kept : last;
        at.inverse_heights[i] = reflects ? 1 / (rest + last * (last - kept)) : Real(0);
    }
#pragma unroll 4
    for (int t = lane_index(); t < at.length; t += 32) {
        if (!reflects) at.next[t] = 0;
        if (reflects && Stored::index(t) == i - 1) at.next[t] = last - kept;
    }
}

// Reduces the matrix. Threads see what is left after the next barrier.
template <class Stored, class Real> __device__ __forceinline__ void reduce(Stored& matrix, Tridiagonal<Real> at) {
    for (int t = threadIdx.x; t < at.length; t += THREADS) at.v[t] = 0, at.q[t] = 0;
    __syncthreads();
    for (int i = at.n - 1; i > 0; i--) {
        if (warp_index() == i % WARPS) next_reflection<Stored>(at, i);
        __syncthreads();
        matrix.step(at, i);
        if (warp_index() == (i + WARPS / 2) % WARPS) {
            for (int j = lane_index(); j < i; j += 32) at.reflections[packed(i, j)] = at.next[Stored::place(j)];
        }
        __syncthreads();
        Real* const old = at.v;
        at.v = at.next;
        at.next = old;
    }
    if (warp_index() == 0) next_reflection<Stored>(at, 0);
    __syncthreads();
}
