// What all kernels share: vectors, pointwise functions, and the cut of work among threads.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_thread_num() { return 0; }
static inline int omp_get_num_threads() { return 1; }
#endif

// Of <math.h>, which takes a compiler longer to read than many a kernel to build, the builtins of GCC and Clang are enough.
#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

template <class T> struct Vector;
template <> struct Vector<float> {
  typedef float type __attribute__((vector_size(VECTOR_BYTES), aligned(4)));
};
template <> struct Vector<double> {
  typedef double type __attribute__((vector_size(VECTOR_BYTES), aligned(8)));
};

// A bfloat16 in memory: the upper half of a float. Reading widens, writing rounds to nearest, ties to even; NaN stays NaN.
struct cb_bf16 {
  uint16_t bits;
  cb_bf16() = default;
  explicit cb_bf16(float x) { *this = x; }
  operator float() const { return __builtin_bit_cast(float, (uint32_t)bits << 16); }
  cb_bf16& operator=(float x) {
    const uint32_t u = __builtin_bit_cast(uint32_t, x);
    bits = (uint16_t)(x != x ? 0x7FC0 : (u + 0x7FFF + ((u >> 16) & 1)) >> 16);
    return *this;
  }
};

// ---------------------------------------------------------------------------------------------- pointwise functions
// The float versions are free of branches, so that loops over them vectorize. Bounds are on the whole range, in units in
// the last place (ulp) of the result, as the tests measure them.

// Both are read, whichever is taken: a loop that reads memory in one branch of ?: alone has a jump an element, which nobody guesses.
template <class X, class Y> INLINE auto cb_where(bool chosen, X x, Y y) { return chosen ? x : y; }

template <class T> INLINE T cb_abs(T x) { return x < 0 ? -x : x; }
INLINE float cb_abs(float x) { return __builtin_fabsf(x); }
INLINE double cb_abs(double x) { return __builtin_fabs(x); }
template <class T> INLINE T cb_sign(T x) { return (T)((x > 0) - (x < 0)); }
template <class T> INLINE T cb_square(T x) { return x * x; }
// A number that is rounded before it is added to another: the compiler knows no more of `mask`, which is 0, than that it is an integer.
INLINE float cb_rounded(float x, int64_t mask) { return __builtin_bit_cast(float, __builtin_bit_cast(int32_t, x) | (int32_t)mask); }
INLINE double cb_rounded(double x, int64_t mask) { return __builtin_bit_cast(double, __builtin_bit_cast(int64_t, x) | mask); }
INLINE int64_t cb_mask() {
  int64_t mask = 0;
  __asm__("" : "+r"(mask));
  return mask;
}
template <class T> INLINE T cb_relu(T x) { return x < 0 ? (T)0 : x; }
template <class T> INLINE T cb_leaky_relu(T x, T slope) { return x > 0 ? x : x * slope; }
template <class T> INLINE T cb_reciprocal(T x) { return (T)1 / x; }
template <class T> INLINE T cb_clamp(T x, T low, T high) { x = x < low ? low : x; return x > high ? high : x; }
// NaN in either operand comes out, as in PyTorch.
template <class T> INLINE T cb_maximum(T x, T y) { return (x > y) | (x != x) ? x : y; }
template <class T> INLINE T cb_minimum(T x, T y) { return (x < y) | (x != x) ? x : y; }

// exp: x = n ln 2 + r, a polynomial for exp(r), and a scaling by 2^n in two steps for subnormal results. 2 ulp.
INLINE float cb_exp(float x) {
  float c = x < -104.f ? -104.f : x;
  c = c > 89.f ? 89.f : c;
  const float shift = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = (c * 1.44269504f + shift) - shift;
  float r = c - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  const int32_t m = (int32_t)(n != n ? 0.f : n);
  const int32_t half = m >> 1;
  const float a = __builtin_bit_cast(float, (half + 127) << 23);
  const float b = __builtin_bit_cast(float, (m - half + 127) << 23);
  return p * a * b;
}
INLINE double cb_exp(double x) { return __builtin_exp(x); }

// tanh: an odd polynomial near 0, 1 - 2 / (exp(2x) + 1) elsewhere. 3 ulp.
INLINE float cb_tanh(float x) {
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float near = p * z * x + x;
  const float a = __builtin_fabsf(x);
  const float far = 1.f - 2.f / (cb_exp(2.f * a) + 1.f);
  return x != x ? x : __builtin_copysignf(a < 0.625f ? near : far, x);
}
INLINE double cb_tanh(double x) { return __builtin_tanh(x); }

// erf: an odd polynomial below 1; above, 1 - exp(-x^2) / x times a polynomial in 1/x^2. 4 ulp.
INLINE float cb_erf(float x) {
  const float z = x * x;
  float s = 7.853861353153693e-5f;
  s = s * z - 8.010193625184903e-4f;
  s = s * z + 5.188327685732524e-3f;
  s = s * z - 2.685381193529856e-2f;
  s = s * z + 1.128358514861418e-1f;
  s = s * z - 3.761262582423300e-1f;
  s = s * z + 1.128379165726710e+0f;
  const float near = s * x;
  float a = __builtin_fabsf(x);
  a = a < 1.f ? 1.f : a;
  const float q = 1.f / a, w = q * q;
  float p = 2.326819970068386e-2f;
  p = p * w - 1.387039388740657e-1f;
  p = p * w + 3.687424674597105e-1f;
  p = p * w - 5.824733027278666e-1f;
  p = p * w + 6.210004621745983e-1f;
  p = p * w - 4.944515323274145e-1f;
  p = p * w + 3.404879937665872e-1f;
  p = p * w - 2.741127028184656e-1f;
  p = p * w + 5.638259427386472e-1f;
  float t = -1.047766399936249e+1f;
  t = t * w + 1.297719955372516e+1f;
  t = t * w - 7.495518717768503e+0f;
  t = t * w + 2.921019019210786e+0f;
  t = t * w - 1.015265279202700e+0f;
  t = t * w + 4.218463358204948e-1f;
  t = t * w - 2.820767439740514e-1f;
  t = t * w + 5.641895067754075e-1f;
  const float tail = cb_exp(-(a * a)) * q * (a < 2.f ? p : t);
  const float far = __builtin_copysignf(1.f - tail, x);
  return __builtin_fabsf(x) < 1.f ? near : (x != x ? x : far);
}
INLINE double cb_erf(double x) { return __builtin_erf(x); }

template <class T> INLINE T cb_sigmoid(T x) { return (T)1 / ((T)1 + cb_exp(-x)); }
template <class T> INLINE T cb_silu(T x) { return x / ((T)1 + cb_exp(-x)); }
INLINE double cb_gelu(double x) { return x * 0.5 * (1. + cb_erf(x * 0.70710678118654752440)); }
// gelu: x times the normal distribution, whose tail is exp(-x^2 / 2) times a polynomial in 1 / (1 + 0.3 |x|), without the cancellation of
// 1 + erf(x). 16 ulp for results above 1e-7, where the rounding of x^2 counts most; half of what erf costs.
INLINE float cb_gelu(float x) {
  const float u = 1.f / (1.f + 0.3f * __builtin_fabsf(x));
  float p = -2.0878261395e-2f;
  p = p * u + 1.1380651610e-1f;
  p = p * u - 2.3140028613e-1f;
  p = p * u + 1.9597418520e-1f;
  p = p * u - 8.2847550413e-2f;
  p = p * u + 9.7955697269e-2f;
  p = p * u + 7.7783858447e-2f;
  p = p * u + 1.1036119087e-1f;
  p = p * u + 1.1955724135e-1f;
  p = p * u + 1.1968740668e-1f;
  const float tail = cb_exp(-0.5f * x * x) * u * p;
  return x * (x < 0 ? tail : 1.f - tail);
}
template <class T> INLINE T cb_gelu_tanh(T x) {
  const T inner = (T)0.79788456080286535588 * (x + (T)0.044715 * x * x * x);
  return (T)0.5 * x * ((T)1 + cb_tanh(inner));
}
// log: x = m 2^n with m around 1, a polynomial for log(m), and n ln 2 in two parts. 1 ulp.
INLINE float cb_log(float x) {
  const bool tiny = x < 1.17549435e-38f;  // subnormal numbers are scaled first
  const int32_t bits = __builtin_bit_cast(int32_t, tiny ? x * 8388608.f : x);
  const int32_t above = bits - 0x3F3504F3;  // relative to the square root of 1/2
  const float n = (float)((above >> 23) - (tiny ? 23 : 0));
  const float r = __builtin_bit_cast(float, (above & 0x007FFFFF) + 0x3F3504F3) - 1.f, z = r * r;
  float p = 7.0376836292e-2f;
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  p = p * r * z - n * 2.12194440e-4f - 0.5f * z;
  const float y = r + p + n * 0.693359375f;
  const float finite = x == 0 ? -INFINITY : x == INFINITY ? INFINITY : y;
  return x >= 0 ? finite : NAN;
}
INLINE double cb_log(double x) { return __builtin_log(x); }
// log1p: the logarithm of u = 1 + x, times x / (u - 1), which undoes the rounding of that sum (Kahan). 3 ulp.
INLINE float cb_log1p(float x) {
  const float u = 1.f + x, d = u - 1.f;
  const float y = cb_log(u) * (x / (d == 0 ? 1.f : d));
  return d == 0 ? x : (x == INFINITY) | (u == 0) ? cb_log(u) : y;
}
INLINE double cb_log1p(double x) { return __builtin_log1p(x); }
// expm1: x = n ln 2 + r, and 2^n expm1(r) + (2^n - 1), with a polynomial for expm1(r). 2 ulp.
INLINE float cb_expm1(float x) {
  float c = x < -18.f ? -18.f : x;
  c = c > 60.f ? 60.f : c;
  const float shift = 12582912.f;
  const float n = (c * 1.44269504f + shift) - shift;
  float r = c - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  const int32_t m = (int32_t)(n != n ? 0.f : n);
  const float scale = __builtin_bit_cast(float, (m + 127) << 23);
  const float y = n == 0 ? p : p * scale + (scale - 1.f);
  return x == 0 ? x : x > 60.f ? cb_exp(x) : y;
}
INLINE double cb_expm1(double x) { return __builtin_expm1(x); }
INLINE float cb_sqrt(float x) { return __builtin_sqrtf(x); }
INLINE double cb_sqrt(double x) { return __builtin_sqrt(x); }
template <class T> INLINE T cb_rsqrt(T x) { return (T)1 / cb_sqrt(x); }
INLINE float cb_sin(float x) { return __builtin_sinf(x); }
INLINE double cb_sin(double x) { return __builtin_sin(x); }
INLINE float cb_cos(float x) { return __builtin_cosf(x); }
INLINE double cb_cos(double x) { return __builtin_cos(x); }
INLINE float cb_pow(float x, float y) { return __builtin_powf(x, y); }
INLINE double cb_pow(double x, double y) { return __builtin_pow(x, y); }
// Roots and reciprocals where PyTorch takes them: they and pow differ at -0 and at -infinity.
template <class T> INLINE T cb_pow_scalar(T x, T n) {
  return n == 2 ? x * x : n == 1 ? x : n == 3 ? x * x * x : n == (T)0.5 ? cb_sqrt(x) : n == (T)-0.5 ? cb_rsqrt(x) : n == -1 ? (T)1 / x
       : n == -2 ? (T)1 / (x * x) : cb_pow(x, n);
}
template <class T> INLINE T cb_elu(T x, T alpha) { return x < 0 ? alpha * cb_expm1(x) : x; }
template <class T> INLINE T cb_softplus(T x, T beta, T threshold) {
  return x * beta > threshold ? x : cb_log1p(cb_exp(x * beta)) / beta;
}

// SplitMix64 of a counter (Steele, Lea, Flood 2014), as a number in [0, 1).
INLINE uint64_t cb_mix(uint64_t x) {
  x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
  return x ^ (x >> 31);
}
template <class T> inline T cb_uniform(int64_t seed, uint64_t salt, int64_t number);
template <> inline float cb_uniform<float>(int64_t seed, uint64_t salt, int64_t number) {
  const uint64_t x = (uint64_t)seed + salt * UINT64_C(0x9E3779B97F4A7C15) + (uint64_t)(number + 1) * UINT64_C(0xBF58476D1CE4E5B9);
  return (float)(uint32_t)(cb_mix(x) >> 40) * 5.9604644775390625e-8f;
}
template <> inline double cb_uniform<double>(int64_t seed, uint64_t salt, int64_t number) {
  const uint64_t x = (uint64_t)seed + salt * UINT64_C(0x9E3779B97F4A7C15) + (uint64_t)(number + 1) * UINT64_C(0xBF58476D1CE4E5B9);
  return (double)(int64_t)(cb_mix(x) >> 11) * 1.1102230246251565404e-16;
}

// ---------------------------------------------------------------------------------------------- sums within a row

// f(0) + ... + f(N - 1), in an order that is the same for every N: lane by lane, then the lanes pairwise. A plain loop would have to add
// one after the other, since rounding depends on the order.
template <class T, int N, class F> INLINE T cb_sum(F f) {
  constexpr int L = N >= 16 ? 64 / (int)sizeof(T) : N >= 8 ? 8 : 4, FULL = N / L * L;
  if (N < 4) {
    T total = 0;
    for (int i = 0; i < N; ++i) total += f(i);
    return total;
  }
  alignas(64) T part[L];
  for (int l = 0; l < L; ++l) part[l] = 0;
  #pragma GCC unroll 16
  for (int i = 0; i < FULL; i += L) {
    #pragma omp simd
    for (int l = 0; l < L; ++l) part[l] += f(i + l);
  }
  for (int i = FULL; i < N; ++i) part[i - FULL] += f(i);
  #pragma GCC unroll 8
  for (int half = L / 2; half > 0; half /= 2) {
    #pragma omp simd
    for (int l = 0; l < half; ++l) part[l] += part[l + half];
  }
  return part[0];
}

// out[h] = f(h, 0) + ... + f(h, N - 1) for H sums.
#if defined(__AVX__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CB_SHUFFLES 1
#endif
#endif
template <class T, int H, int N, class F> INLINE void cb_sums(T* out, F f) {
#ifdef CB_SHUFFLES
  if constexpr (sizeof(T) == 4 && H % 4 == 0 && N % 8 == 0) {
    // Four sums at a time: halves of two vectors are added side by side, so that no step works on vectors that are mostly empty.
    typedef T V __attribute__((vector_size(32)));
    #pragma GCC unroll 4
    for (int h = 0; h < H; h += 4) {
      V s[4];
      #pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        alignas(32) T part[8];
        #pragma omp simd
        for (int l = 0; l < 8; ++l) part[l] = f(h + g, l);
        #pragma GCC unroll 16
        for (int i = 8; i < N; i += 8) {
          #pragma omp simd
          for (int l = 0; l < 8; ++l) part[l] += f(h + g, i + l);
        }
        s[g] = *(const V*)part;
      }
      const V a = __builtin_shufflevector(s[0], s[1], 0, 1, 2, 3, 8, 9, 10, 11) + __builtin_shufflevector(s[0], s[1], 4, 5, 6, 7, 12, 13, 14, 15);
      const V b = __builtin_shufflevector(s[2], s[3], 0, 1, 2, 3, 8, 9, 10, 11) + __builtin_shufflevector(s[2], s[3], 4, 5, 6, 7, 12, 13, 14, 15);
      const V c = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
      const V d = c + __builtin_shufflevector(c, c, 1, 0, 3, 2, 5, 4, 7, 6);
      out[h] = d[0]; out[h + 1] = d[4]; out[h + 2] = d[2]; out[h + 3] = d[6];
    }
    return;
  }
#endif
  for (int h = 0; h < H; ++h) out[h] = cb_sum<T, N>([&](int i) __attribute__((always_inline)) { return f(h, i); });
}

// ---------------------------------------------------------------------------------------------- small rows of members

// out[h] = f over all x[i * SIZE + h], for n numbers side by side: 16 at a time, then the lanes of each result pairwise, in an order that is
// the same for every n. `start` is what f leaves alone; it fills a step of room behind the numbers.
template <class T, int SIZE, class F> INLINE void cb_fold_rows(T* __restrict out, T* __restrict x, int64_t n, T start, F f) {
  constexpr int LANES = 16;
  static_assert(LANES % SIZE == 0, "rows fill a step");
  for (int i = 0; i < LANES; ++i) x[n + i] = start;
  alignas(64) T lane[LANES];
  for (int i = 0; i < LANES; ++i) lane[i] = start;
  for (int64_t j = 0; j < n; j += LANES) {
    #pragma omp simd
    for (int i = 0; i < LANES; ++i) lane[i] = f(x[j + i], lane[i]);
  }
  #pragma GCC unroll 4
  for (int half = LANES / 2; half >= SIZE; half /= 2) {
    #pragma omp simd
    for (int i = 0; i < half; ++i) lane[i] = f(lane[i + half], lane[i]);
  }
  for (int i = 0; i < SIZE; ++i) out[i] = lane[i];
}
struct cb_sum_of {
  template <class T> __attribute__((always_inline)) T operator()(T x, T y) const { return x + y; }
};
struct cb_larger_of {
  template <class T> __attribute__((always_inline)) T operator()(T x, T y) const { return cb_maximum(x, y); }
};
struct cb_smaller_of {
  template <class T> __attribute__((always_inline)) T operator()(T x, T y) const { return cb_minimum(x, y); }
};

// ---------------------------------------------------------------------------------------------- work among threads

// The first owner of a thread, when the owners from one to another are cut so that owners and members together are even.
template <class I> static int64_t cb_cut(const I* segments, int64_t from, int64_t to, int thread, int threads) {
  if (thread >= threads) return to;
  const int64_t before = from + (int64_t)segments[from], total = to + (int64_t)segments[to] - before;
  const int64_t target = before + total / threads * thread;
  int64_t low = from, high = to;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (middle + (int64_t)segments[middle] < target) low = middle + 1; else high = middle;
  }
  return low;
}

INLINE int64_t cb_even(int64_t rows, int thread, int threads) { return rows / threads * thread + (rows % threads) * thread / threads; }

// The first tile that begins at a row or after it. Tiles follow each other without gaps.
template <class I> static int64_t cb_tile_at(const I* begins, int64_t tiles, int64_t row) {
  int64_t low = 0, high = tiles;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if ((int64_t)begins[middle] < row) low = middle + 1; else high = middle;
  }
  return low;
}

// Where the chunk of rows that begins at `from` ends: after the last tile within `rows` rows, but after one tile at least.
template <class I> static int64_t cb_chunk(const I* table, int64_t tiles, int64_t from, int64_t rows) {
  const I* begins = table + tiles;
  const int64_t first = cb_tile_at(begins, tiles, from);
  if (first == tiles) return from;
  const int64_t next = cb_tile_at(begins, tiles, from + rows + 1) - 1;  // the last tile that begins within them
  const int64_t whole = (int64_t)table[2 * tiles + next] <= from + rows ? next : next - 1;
  return (int64_t)table[2 * tiles + (whole > first ? whole : first)];
}

// One of the threads that share the work of a kernel, and how many of its tiles have been handed out.
struct Team {
  int thread, threads;
  int64_t* taken;
  // The first of the next `count` tiles, counted from 0, which are the caller's. There may be fewer left.
  int64_t take(int64_t count) const {
    if (threads > 1) return __atomic_fetch_add(taken, count, __ATOMIC_RELAXED);
    const int64_t first = *taken;
    *taken += count;
    return first;
  }
  void meet() const {
    if (threads > 1) {
      #pragma omp barrier
    }
  }
};
// Calls `work` once for each thread, and says whether one failed. A single thread needs no parallel region, which takes as long as a small kernel.
template <class F> static inline int cb_team(int threads, const F& work) {
  int64_t taken = 0;
  if (threads == 1) return work(Team{0, 1, &taken});
  int failed = 0;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  failed |= work(Team{omp_get_thread_num(), omp_get_num_threads(), &taken});
  return failed;
}

// The owners of one thread, when rows are added to them: each owner is one thread's, and the rows of all threads are about as many.
struct Share {
  int64_t first, last;
};
template <class I> static Share cb_share(const I* owner, int64_t from, int64_t to, int64_t owners, int thread, int threads) {
  if (threads == 1) return {0, owners};
  constexpr int BUCKETS = 1024;
  int64_t rows[BUCKETS] = {};
  int shift = 0;
  while ((owners - 1) >> shift >= BUCKETS) ++shift;
  for (int64_t k = from; k < to; ++k) ++rows[owner[k] >> shift];
  Share share = {owners, owners};
  int64_t before = 0;
  for (int64_t b = 0; b < BUCKETS; ++b) {
    if (share.first == owners && before >= cb_even(to - from, thread, threads)) share.first = b << shift;
    if (before >= cb_even(to - from, thread + 1, threads)) { share.last = b << shift; break; }
    before += rows[b];
  }
  if (thread == 0) share.first = 0;
  if (thread == threads - 1 || share.last > owners) share.last = owners;
  if (share.first > owners) share.first = owners;
  return share;
}

// What a sum over rows does in a group: makes room for a chunk's tiles, takes a part's rows in, adds the chunk's tiles up.
enum Phase { CHUNK_BEGINS, ROWS, CHUNK_ENDS };

// Sums of tiles, from the first tile of a chunk on.
struct Partials {
  void* at = nullptr;
  int64_t first_tile = 0;
  Partials() = default;
  Partials(const Partials&) = delete;
  ~Partials() { free(at); }
};

// A buffer moved by some bytes: where its first row would be if only some of its rows are there.
static inline void* cb_shifted(void* buffer, int64_t bytes) { return (void*)((uintptr_t)buffer + (uintptr_t)bytes); }

// Adds the time since `start`, which becomes now.
static inline void cb_took(double* seconds, double* start) {
  const double now = omp_get_wtime();
  *seconds += now - *start;
  *start = now;
}

// Memory of one thread that grows and is never shared. allocate() may fail: the kernel then reports it.
struct Scratch {
  char* at = nullptr;
  size_t size = 0;
  bool reserve(size_t bytes) {
    if (bytes <= size) return true;
    free(at);
    size = bytes + bytes / 2;
    at = (char*)aligned_alloc(64, (size + 63) / 64 * 64);
    if (!at) size = 0;
    return at != nullptr;
  }
  ~Scratch() { free(at); }
};
