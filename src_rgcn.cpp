// Columba: RGCNConv
// What all kernels share: vectors, pointwise functions, and the cut of work among threads.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_thread_num() { return 0; }
static inline int omp_get_num_threads() { return 1; }
#endif

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

template <class T> INLINE T cb_abs(T x) { return x < 0 ? -x : x; }
INLINE float cb_abs(float x) { return __builtin_fabsf(x); }
INLINE double cb_abs(double x) { return __builtin_fabs(x); }
template <class T> INLINE T cb_sign(T x) { return (T)((x > 0) - (x < 0)); }
template <class T> INLINE T cb_square(T x) { return x * x; }
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
INLINE double cb_exp(double x) { return exp(x); }

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
  const float far = __builtin_copysignf(1.f - 2.f / (cb_exp(2.f * a) + 1.f), x);
  return a < 0.625f ? near : (x != x ? x : far);
}
INLINE double cb_tanh(double x) { return tanh(x); }

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
INLINE double cb_erf(double x) { return erf(x); }

template <class T> INLINE T cb_sigmoid(T x) { return (T)1 / ((T)1 + cb_exp(-x)); }
template <class T> INLINE T cb_silu(T x) { return x / ((T)1 + cb_exp(-x)); }
template <class T> INLINE T cb_gelu(T x) { return x * (T)0.5 * ((T)1 + cb_erf(x * (T)0.70710678118654752440)); }
template <class T> INLINE T cb_gelu_tanh(T x) {
  const T inner = (T)0.79788456080286535588 * (x + (T)0.044715 * x * x * x);
  return (T)0.5 * x * ((T)1 + cb_tanh(inner));
}
INLINE float cb_log(float x) { return logf(x); }
INLINE double cb_log(double x) { return log(x); }
INLINE float cb_log1p(float x) { return log1pf(x); }
INLINE double cb_log1p(double x) { return log1p(x); }
INLINE float cb_expm1(float x) { return expm1f(x); }
INLINE double cb_expm1(double x) { return expm1(x); }
INLINE float cb_sqrt(float x) { return sqrtf(x); }
INLINE double cb_sqrt(double x) { return sqrt(x); }
template <class T> INLINE T cb_rsqrt(T x) { return (T)1 / cb_sqrt(x); }
INLINE float cb_sin(float x) { return sinf(x); }
INLINE double cb_sin(double x) { return sin(x); }
INLINE float cb_cos(float x) { return cosf(x); }
INLINE double cb_cos(double x) { return cos(x); }
INLINE float cb_pow(float x, float y) { return powf(x, y); }
INLINE double cb_pow(double x, double y) { return pow(x, y); }
template <class T> INLINE T cb_pow_scalar(T x, T n) { return n == 2 ? x * x : n == 1 ? x : n == 3 ? x * x * x : cb_pow(x, n); }
template <class T> INLINE T cb_elu(T x, T alpha) { return x > 0 ? x : alpha * cb_expm1(x); }
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

// ---------------------------------------------------------------------------------------------- work among threads

// The first owner of a thread, when owners are cut so that owners and members together are even.
template <class I> static int64_t cb_cut(const I* segments, int64_t owners, int thread, int threads) {
  if (thread >= threads) return owners;
  const int64_t total = owners + (int64_t)segments[owners];
  const int64_t target = total / threads * thread;
  int64_t low = 0, high = owners;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (middle + (int64_t)segments[middle] < target) low = middle + 1; else high = middle;
  }
  return low;
}

INLINE int64_t cb_even(int64_t rows, int thread, int threads) { return rows / threads * thread + (rows % threads) * thread / threads; }

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
// Matrix products whose rows are gathered and scattered, blocked for registers.

// Copies fewer than 32 elements in pieces of constant size, which a compiler knows how to move without a call.
template <class T>
INLINE void cb_store_part(T* out, const T* from, int64_t width) {
  if (width & 16) memcpy(out, from, 16 * sizeof(T)), out += 16, from += 16;
  if (width & 8) memcpy(out, from, 8 * sizeof(T)), out += 8, from += 8;
  if (width & 4) memcpy(out, from, 4 * sizeof(T)), out += 4, from += 4;
  if (width & 2) memcpy(out, from, 2 * sizeof(T)), out += 2, from += 2;
  if (width & 1) *out = *from;
}

// MR rows of the left operand times NV vectors of columns. `b` is a panel: K rows of NV vectors.
template <class T, int MR, int NV>
INLINE void cb_block(int64_t depth, const T* const* a, int64_t a_at, const T* b, T* const* c, int64_t c_at, int64_t width) {
  typedef typename Vector<T>::type V;
  constexpr int W = VECTOR_BYTES / sizeof(T);
  V sum[MR][NV] = {};
  const T* row[MR];
  for (int i = 0; i < MR; ++i) row[i] = a[i] + a_at;
  for (int i = 0; i < MR; ++i) __builtin_prefetch(c[i] + c_at, 1);
  for (int64_t k = 0; k < depth; ++k) {
    V right[NV];
    for (int j = 0; j < NV; ++j) right[j] = *(const V*)(b + (k * NV + j) * W);
    for (int i = 0; i < MR; ++i) {
      const T left = row[i][k];
      for (int j = 0; j < NV; ++j) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < MR; ++i) {
    T* out = c[i] + c_at;
    if (width == NV * W) {
      for (int j = 0; j < NV; ++j) *(V*)(out + j * W) = sum[i][j];
    } else {
      cb_store_part<T>(out, (const T*)&sum[i][0], width);
    }
  }
}

template <class T, int MR>
INLINE void cb_panels(int64_t depth, int64_t columns, const T* const* a, int64_t a_at, const T* b, T* const* c, int64_t c_at) {
  constexpr int W = VECTOR_BYTES / sizeof(T);
  for (int64_t n = 0; n < columns; n += 2 * W) {
    const int64_t width = columns - n < 2 * W ? columns - n : 2 * W;
    if (width > W) cb_block<T, MR, 2>(depth, a, a_at, b + n * depth, c, c_at + n, width);
    else cb_block<T, MR, 1>(depth, a, a_at, b + n * depth, c, c_at + n, width);
  }
}

// c[i][c_at + n] = sum_k a[i][a_at + k] B[k, n], with B packed by cb_pack.
template <class T>
static void cb_gemm(int64_t rows, int64_t depth, int64_t columns, const T* const* a, int64_t a_at, const T* b, T* const* c, int64_t c_at) {
  int64_t i = 0;
  for (; i + 6 <= rows; i += 6) {
    for (int next = 6; next < 12 && i + next < rows; ++next)
      for (int64_t k = 0; k < depth && k < 64; k += 64 / sizeof(T)) __builtin_prefetch(a[i + next] + a_at + k);
    cb_panels<T, 6>(depth, columns, a + i, a_at, b, c + i, c_at);
  }
  switch (rows - i) {
    case 5: return cb_panels<T, 5>(depth, columns, a + i, a_at, b, c + i, c_at);
    case 4: return cb_panels<T, 4>(depth, columns, a + i, a_at, b, c + i, c_at);
    case 3: return cb_panels<T, 3>(depth, columns, a + i, a_at, b, c + i, c_at);
    case 2: return cb_panels<T, 2>(depth, columns, a + i, a_at, b, c + i, c_at);
    case 1: return cb_panels<T, 1>(depth, columns, a + i, a_at, b, c + i, c_at);
  }
}

// Elements that a packed matrix takes: columns rounded up to whole vectors.
template <class T> INLINE int64_t cb_packed(int64_t depth, int64_t columns) {
  constexpr int64_t W = VECTOR_BYTES / sizeof(T);
  return depth * ((columns + W - 1) / W * W);
}

// Packs B [depth, columns] (stored transposed: [columns, depth]) into panels of two vectors; the last may be of one.
// Elements of another type, which fewer bits are, are widened.
template <class T, bool TRANSPOSED, class S>
static void cb_pack(int64_t depth, int64_t columns, const S* b, T* packed) {
  constexpr int64_t W = VECTOR_BYTES / sizeof(T);
  for (int64_t n = 0; n < columns; n += 2 * W) {
    const int64_t width = columns - n < 2 * W ? columns - n : 2 * W;
    const int64_t lanes = width > W ? 2 * W : W;
    T* panel = packed + n * depth;
    if (width < lanes) memset(panel, 0, depth * lanes * sizeof(T));
    if (TRANSPOSED) {
      for (int64_t j = 0; j < width; ++j)
        for (int64_t k = 0; k < depth; ++k) panel[k * lanes + j] = (T)b[(n + j) * depth + k];
    } else if (sizeof(S) != sizeof(T)) {
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t j = 0; j < width; ++j) panel[k * lanes + j] = (T)b[k * columns + n + j];
    } else if (width == 2 * W) {  // whole vectors: a call of memcpy for each piece would cost as much as a tenth of the product
      typedef typename Vector<T>::type V;
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t j = 0; j < 2 * W; j += W) *(V*)(panel + k * 2 * W + j) = *(const V*)(b + k * columns + n + j);
    } else {
      for (int64_t k = 0; k < depth; ++k) memcpy(panel + k * lanes, b + k * columns + n, width * sizeof(T));
    }
  }
}

// Rows that are fetched while others are worked on.
template <class T> struct Ahead {
  const T* const* x;
  const T* const* y;
  int64_t x_at, y_at, x_size, y_size, rows, next;
  inline void fetch(int64_t count) {
    for (; count > 0 && next < rows; --count, ++next) {
      for (int64_t i = 0; i < x_size; i += 64 / sizeof(T)) __builtin_prefetch(x[next] + x_at + i);
      for (int64_t i = 0; i < y_size; i += 64 / sizeof(T)) __builtin_prefetch(y[next] + y_at + i);
    }
  }
};

// c[i, n..] += sum over rows of x[row][x_at + i] y[row][y_at + n..]; y and c have rows of whole vectors.
template <class T, int MR, int NV>
INLINE void cb_outer_block(int64_t rows, const T* const* x, int64_t x_at, const T* const* y, int64_t y_at, T* c, int64_t c_stride) {
  typedef typename Vector<T>::type V;
  constexpr int W = VECTOR_BYTES / sizeof(T);
  V sum[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) sum[i][j] = *(const V*)(c + i * c_stride + j * W);
  for (int64_t r = 0; r < rows; ++r) {
    const T* left = x[r] + x_at;
    const T* below = y[r] + y_at;
    V right[NV];
    for (int j = 0; j < NV; ++j) right[j] = *(const V*)(below + j * W);
    for (int i = 0; i < MR; ++i)
      for (int j = 0; j < NV; ++j) sum[i][j] += left[i] * right[j];
  }
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) *(V*)(c + i * c_stride + j * W) = sum[i][j];
}

template <class T, int NV>
INLINE void cb_outer_panel(int64_t rows, int64_t depth, const T* const* x, int64_t x_at, const T* const* y, int64_t y_at, T* c, int64_t c_stride, Ahead<T>& ahead, int64_t each) {
  int64_t k = 0;
  for (; k + 6 <= depth; k += 6) {
    ahead.fetch(each);
    cb_outer_block<T, 6, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
  }
  switch (depth - k) {
    case 5: return cb_outer_block<T, 5, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
    case 4: return cb_outer_block<T, 4, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
    case 3: return cb_outer_block<T, 3, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
    case 2: return cb_outer_block<T, 2, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
    case 1: return cb_outer_block<T, 1, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
  }
}

// C [depth, padded] += X' Y, row r of X being x[r] + x_at and of Y y[r] + y_at, `padded` elements wide. Runs block by block, so
// that both stay in the first cache, and fetches the next block meanwhile.
template <class T>
static void cb_outer(int64_t rows, int64_t depth, int64_t padded, const T* const* x, int64_t x_at, const T* const* y, int64_t y_at, T* c) {
  constexpr int W = VECTOR_BYTES / sizeof(T);
  int64_t block = 24576 / ((depth + padded) * (int64_t)sizeof(T)) / 8 * 8;
  block = block < 16 ? 16 : block > 128 ? 128 : block;
  const int64_t calls = (depth / 6 > 0 ? depth / 6 : 1) * ((padded + 2 * W - 1) / (2 * W)), each = (block + calls - 1) / calls;
  for (int64_t r = 0; r < rows; r += block) {
    const int64_t here = rows - r < block ? rows - r : block, left = rows - r - here;
    Ahead<T> ahead = {x + r + here, y + r + here, x_at, y_at, depth, padded, left < block ? left : block, 0};
    int64_t n = 0;
    for (; n + 2 * W <= padded; n += 2 * W) cb_outer_panel<T, 2>(here, depth, x + r, x_at, y + r, y_at + n, c + n, padded, ahead, each);
    if (n < padded) cb_outer_panel<T, 1>(here, depth, x + r, x_at, y + r, y_at + n, c + n, padded, ahead, each);
  }
}

typedef int32_t index_t;

// gemm linear_5_kernel() {
//   %0: src_rel[64] f32 = load(buffer=@x, via=src:src_rel->node, at=src_rel)
//   %1: src_rel[64] f32 = product(%0, w=@weight, via=rel:src_rel->rel, transpose=false)
//   store @linear_5 = %1
// }
static int RGCNConv_linear_5_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_src_rel = counts[6];
  const float* __restrict b_weight = (const float*)buffers[1];
  const float* __restrict b_x = (const float*)buffers[0];
  float* __restrict b_linear_5 = (float*)buffers[5];
  const index_t* __restrict src_of_src_rel = (const index_t*)index[2];
  const index_t* __restrict tiles_src_rel_by_rel_512 = (const index_t*)index[0];
  int failed = 0;
  constexpr int64_t K = 64, N = 64, LEAD = 1, MATRICES = 1, TILE = 512;
  const int64_t tiles = counts[9];
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int64_t packed_size = cb_packed<float>(K, N);
    Scratch pack_memory;
    const float* left[TILE];
    float* product[TILE];
    bool ready = pack_memory.reserve(MATRICES * packed_size * sizeof(float) + 64);
    float* packed = (float*)pack_memory.at;
    int64_t packed_for = -1;
    if (!ready) failed = 1;
    #pragma omp for schedule(dynamic, 2)
    for (int64_t t = 0; t < tiles; ++t) {
      if (!ready) continue;
      const int64_t s = tiles_src_rel_by_rel_512[t], begin = tiles_src_rel_by_rel_512[tiles + t], end = tiles_src_rel_by_rel_512[2 * tiles + t];
      if (packed_for != s) {
        for (int64_t m = 0; m < MATRICES; ++m)
          cb_pack<float, false>(K, N, b_weight + (s * MATRICES + m) * K * N, packed + m * packed_size);
        packed_for = s;
      }
      for (int64_t k = begin; k < end; ++k) {
        left[k - begin] = b_x + (int64_t)src_of_src_rel[k] * 64;
        product[k - begin] = b_linear_5 + (int64_t)k * 64;
      }
      for (int64_t l = 0; l < LEAD; ++l)
        cb_gemm<float>(end - begin, K, N, left, l * K, packed + (MATRICES > 1 ? l : 0) * packed_size, product, l * N);
    }
  }
  return failed;
}
// traversal pointwise_7_kernel(owner=dst_rel, via=dst_rel:edge->dst_rel) {
//   %0: dst_rel[] f32 = degree(via=dst_rel:edge->dst_rel, to=f32)
//   %1: dst_rel[] f32 = constant(at=dst_rel, value=1.0, to=f32)
//   %2: dst_rel[] f32 = pointwise(%0, %1, function=maximum, scalars=[])
//   %3: dst_rel[] f32 = pointwise(%2, function=reciprocal, scalars=[])
//   store @pointwise_7 = %3
// }
static int RGCNConv_pointwise_7_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_dst_rel = counts[7];
  const int64_t n_edge = counts[3];
  float* __restrict b_pointwise_7 = (float*)buffers[6];
  const index_t* __restrict segments_edge_by_dst_rel = (const index_t*)index[3];
  int failed = 0;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int pieces = 1 * omp_get_num_threads();
    Scratch memory;
    #pragma omp for schedule(static, 1)
    for (int piece = 0; piece < pieces; ++piece) {
      const int64_t first = cb_cut(segments_edge_by_dst_rel, n_dst_rel, piece, pieces);
      const int64_t last = cb_cut(segments_edge_by_dst_rel, n_dst_rel, piece + 1, pieces);
      for (int64_t o = first; o < last; ++o) {
        const int64_t begin = segments_edge_by_dst_rel[o], end = segments_edge_by_dst_rel[o + 1];
        b_pointwise_7[(int64_t)o] = cb_reciprocal(cb_maximum(((float)(segments_edge_by_dst_rel[o + 1] - segments_edge_by_dst_rel[o])), 1.0f));
      }
    }
  }
  return failed;
}
// gemm linear_9_kernel() {
//   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
//   %1: node[64] f32 = product(%0, w=@root, via=one:node->one, transpose=false)
//   store @linear_9 = %1
// }
static int RGCNConv_linear_9_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_node = counts[2];
  const float* __restrict b_root = (const float*)buffers[2];
  const float* __restrict b_x = (const float*)buffers[0];
  float* __restrict b_linear_9 = (float*)buffers[7];
  int failed = 0;
  constexpr int64_t K = 64, N = 64, LEAD = 1, MATRICES = 1, TILE = 512;
  const int64_t tiles = (n_node + TILE - 1) / TILE;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int64_t packed_size = cb_packed<float>(K, N);
    Scratch pack_memory;
    const float* left[TILE];
    float* product[TILE];
    bool ready = pack_memory.reserve(MATRICES * packed_size * sizeof(float) + 64);
    float* packed = (float*)pack_memory.at;
    int64_t packed_for = -1;
    if (!ready) failed = 1;
    #pragma omp for schedule(dynamic, 2)
    for (int64_t t = 0; t < tiles; ++t) {
      if (!ready) continue;
      const int64_t s = 0, begin = t * TILE, end = begin + TILE < n_node ? begin + TILE : n_node;
      if (packed_for != s) {
        for (int64_t m = 0; m < MATRICES; ++m)
          cb_pack<float, false>(K, N, b_root + (s * MATRICES + m) * K * N, packed + m * packed_size);
        packed_for = s;
      }
      for (int64_t k = begin; k < end; ++k) {
        left[k - begin] = b_x + (int64_t)k * 64;
        product[k - begin] = b_linear_9 + (int64_t)k * 64;
      }
      for (int64_t l = 0; l < LEAD; ++l)
        cb_gemm<float>(end - begin, K, N, left, l * K, packed + (MATRICES > 1 ? l : 0) * packed_size, product, l * N);
    }
  }
  return failed;
}
// traversal out_kernel(owner=node, via=dst:edge->node) {
//   %0: edge[64] f32 = load(buffer=@linear_5, via=src_rel:edge->src_rel, at=edge)
//   %1: edge[] f32 = load(buffer=@pointwise_7, via=dst_rel:edge->dst_rel, at=edge)
//   %2: edge[64] f32 = pointwise(%0, %1, function=mul, scalars=[])
//   %3: node[64] f32 = reduce(%2, via=dst:edge->node, op=sum)
//   %4: node[64] f32 = load(buffer=@linear_9, via=none, at=node)
//   %5: node[64] f32 = pointwise(%3, %4, function=add, scalars=[])
//   %6: node[64] f32 = load(buffer=@bias, via=one:node->one, at=node)
//   %7: node[64] f32 = pointwise(%5, %6, function=add, scalars=[])
//   store @out = %7
// }
static int RGCNConv_out_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_edge = counts[3];
  const int64_t n_node = counts[2];
  const float* __restrict b_linear_9 = (const float*)buffers[7];
  const float* __restrict b_bias = (const float*)buffers[3];
  const float* __restrict b_linear_5 = (const float*)buffers[5];
  const float* __restrict b_pointwise_7 = (const float*)buffers[6];
  float* __restrict b_out = (float*)buffers[4];
  const index_t* __restrict segments_edge_by_dst = (const index_t*)index[4];
  const index_t* __restrict src_rel_of_edge_by_dst = (const index_t*)index[5];
  const index_t* __restrict dst_rel_of_edge_by_dst = (const index_t*)index[6];
  int failed = 0;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int pieces = 1 * omp_get_num_threads();
    Scratch memory;
    #pragma omp for schedule(static, 1)
    for (int piece = 0; piece < pieces; ++piece) {
      const int64_t first = cb_cut(segments_edge_by_dst, n_node, piece, pieces);
      const int64_t last = cb_cut(segments_edge_by_dst, n_node, piece + 1, pieces);
      for (int64_t o = first; o < last; ++o) {
        const int64_t begin = segments_edge_by_dst[o], end = segments_edge_by_dst[o + 1];
        alignas(64) float total_1[64];
        for (int i = 0; i < 64; ++i) total_1[i] = (float)0;
        for (int64_t k = begin; k < end; ++k) {
          const float* __restrict row_2 = b_linear_5 + (int64_t)src_rel_of_edge_by_dst[k] * 64;
          const int64_t ahead = k + 8 < n_edge ? k + 8 : k;
          __builtin_prefetch((const char*)(b_linear_5 + (int64_t)src_rel_of_edge_by_dst[ahead] * 64) + 0);
          __builtin_prefetch((const char*)(b_linear_5 + (int64_t)src_rel_of_edge_by_dst[ahead] * 64) + 64);
          __builtin_prefetch((const char*)(b_linear_5 + (int64_t)src_rel_of_edge_by_dst[ahead] * 64) + 128);
          __builtin_prefetch((const char*)(b_linear_5 + (int64_t)src_rel_of_edge_by_dst[ahead] * 64) + 192);
          #pragma omp simd
          for (int i = 0; i < 64; ++i) total_1[i] += (row_2[i] * b_pointwise_7[(int64_t)dst_rel_of_edge_by_dst[k]]);
        }
        #pragma omp simd
        for (int i = 0; i < 64; ++i) b_out[(int64_t)o * 64 + i] = ((total_1[i] + b_linear_9[(int64_t)o * 64 + i]) + b_bias[i]);
      }
    }
  }
  return failed;
}
// Stage 0 of plan RGCNConv: 4 kernels.
extern "C" int RGCNConv_stage_0(void* const* buffers, const void* const* index, const int64_t* counts, int threads, double* seconds) {
  double start = seconds ? omp_get_wtime() : 0;
  if (RGCNConv_linear_5_kernel(buffers, index, counts, threads)) return 1;
  if (seconds) start += seconds[0] = omp_get_wtime() - start;
  if (RGCNConv_pointwise_7_kernel(buffers, index, counts, threads)) return 2;
  if (seconds) start += seconds[1] = omp_get_wtime() - start;
  if (RGCNConv_linear_9_kernel(buffers, index, counts, threads)) return 3;
  if (seconds) start += seconds[2] = omp_get_wtime() - start;
  if (RGCNConv_out_kernel(buffers, index, counts, threads)) return 4;
  if (seconds) start += seconds[3] = omp_get_wtime() - start;
  return 0;
}

// Columba: RGCNConv_backward
// What all kernels share: vectors, pointwise functions, and the cut of work among threads.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_thread_num() { return 0; }
static inline int omp_get_num_threads() { return 1; }
#endif

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

template <class T> INLINE T cb_abs(T x) { return x < 0 ? -x : x; }
INLINE float cb_abs(float x) { return __builtin_fabsf(x); }
INLINE double cb_abs(double x) { return __builtin_fabs(x); }
template <class T> INLINE T cb_sign(T x) { return (T)((x > 0) - (x < 0)); }
template <class T> INLINE T cb_square(T x) { return x * x; }
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
INLINE double cb_exp(double x) { return exp(x); }

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
  const float far = __builtin_copysignf(1.f - 2.f / (cb_exp(2.f * a) + 1.f), x);
  return a < 0.625f ? near : (x != x ? x : far);
}
INLINE double cb_tanh(double x) { return tanh(x); }

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
INLINE double cb_erf(double x) { return erf(x); }

template <class T> INLINE T cb_sigmoid(T x) { return (T)1 / ((T)1 + cb_exp(-x)); }
template <class T> INLINE T cb_silu(T x) { return x / ((T)1 + cb_exp(-x)); }
template <class T> INLINE T cb_gelu(T x) { return x * (T)0.5 * ((T)1 + cb_erf(x * (T)0.70710678118654752440)); }
template <class T> INLINE T cb_gelu_tanh(T x) {
  const T inner = (T)0.79788456080286535588 * (x + (T)0.044715 * x * x * x);
  return (T)0.5 * x * ((T)1 + cb_tanh(inner));
}
INLINE float cb_log(float x) { return logf(x); }
INLINE double cb_log(double x) { return log(x); }
INLINE float cb_log1p(float x) { return log1pf(x); }
INLINE double cb_log1p(double x) { return log1p(x); }
INLINE float cb_expm1(float x) { return expm1f(x); }
INLINE double cb_expm1(double x) { return expm1(x); }
INLINE float cb_sqrt(float x) { return sqrtf(x); }
INLINE double cb_sqrt(double x) { return sqrt(x); }
template <class T> INLINE T cb_rsqrt(T x) { return (T)1 / cb_sqrt(x); }
INLINE float cb_sin(float x) { return sinf(x); }
INLINE double cb_sin(double x) { return sin(x); }
INLINE float cb_cos(float x) { return cosf(x); }
INLINE double cb_cos(double x) { return cos(x); }
INLINE float cb_pow(float x, float y) { return powf(x, y); }
INLINE double cb_pow(double x, double y) { return pow(x, y); }
template <class T> INLINE T cb_pow_scalar(T x, T n) { return n == 2 ? x * x : n == 1 ? x : n == 3 ? x * x * x : cb_pow(x, n); }
template <class T> INLINE T cb_elu(T x, T alpha) { return x > 0 ? x : alpha * cb_expm1(x); }
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

// ---------------------------------------------------------------------------------------------- work among threads

// The first owner of a thread, when owners are cut so that owners and members together are even.
template <class I> static int64_t cb_cut(const I* segments, int64_t owners, int thread, int threads) {
  if (thread >= threads) return owners;
  const int64_t total = owners + (int64_t)segments[owners];
  const int64_t target = total / threads * thread;
  int64_t low = 0, high = owners;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (middle + (int64_t)segments[middle] < target) low = middle + 1; else high = middle;
  }
  return low;
}

INLINE int64_t cb_even(int64_t rows, int thread, int threads) { return rows / threads * thread + (rows % threads) * thread / threads; }

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
// Matrix products whose rows are gathered and scattered, blocked for registers.

// Copies fewer than 32 elements in pieces of constant size, which a compiler knows how to move without a call.
template <class T>
INLINE void cb_store_part(T* out, const T* from, int64_t width) {
  if (width & 16) memcpy(out, from, 16 * sizeof(T)), out += 16, from += 16;
  if (width & 8) memcpy(out, from, 8 * sizeof(T)), out += 8, from += 8;
  if (width & 4) memcpy(out, from, 4 * sizeof(T)), out += 4, from += 4;
  if (width & 2) memcpy(out, from, 2 * sizeof(T)), out += 2, from += 2;
  if (width & 1) *out = *from;
}

// MR rows of the left operand times NV vectors of columns. `b` is a panel: K rows of NV vectors.
template <class T, int MR, int NV>
INLINE void cb_block(int64_t depth, const T* const* a, int64_t a_at, const T* b, T* const* c, int64_t c_at, int64_t width) {
  typedef typename Vector<T>::type V;
  constexpr int W = VECTOR_BYTES / sizeof(T);
  V sum[MR][NV] = {};
  const T* row[MR];
  for (int i = 0; i < MR; ++i) row[i] = a[i] + a_at;
  for (int i = 0; i < MR; ++i) __builtin_prefetch(c[i] + c_at, 1);
  for (int64_t k = 0; k < depth; ++k) {
    V right[NV];
    for (int j = 0; j < NV; ++j) right[j] = *(const V*)(b + (k * NV + j) * W);
    for (int i = 0; i < MR; ++i) {
      const T left = row[i][k];
      for (int j = 0; j < NV; ++j) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < MR; ++i) {
    T* out = c[i] + c_at;
    if (width == NV * W) {
      for (int j = 0; j < NV; ++j) *(V*)(out + j * W) = sum[i][j];
    } else {
      cb_store_part<T>(out, (const T*)&sum[i][0], width);
    }
  }
}

template <class T, int MR>
INLINE void cb_panels(int64_t depth, int64_t columns, const T* const* a, int64_t a_at, const T* b, T* const* c, int64_t c_at) {
  constexpr int W = VECTOR_BYTES / sizeof(T);
  for (int64_t n = 0; n < columns; n += 2 * W) {
    const int64_t width = columns - n < 2 * W ? columns - n : 2 * W;
    if (width > W) cb_block<T, MR, 2>(depth, a, a_at, b + n * depth, c, c_at + n, width);
    else cb_block<T, MR, 1>(depth, a, a_at, b + n * depth, c, c_at + n, width);
  }
}

// c[i][c_at + n] = sum_k a[i][a_at + k] B[k, n], with B packed by cb_pack.
template <class T>
static void cb_gemm(int64_t rows, int64_t depth, int64_t columns, const T* const* a, int64_t a_at, const T* b, T* const* c, int64_t c_at) {
  int64_t i = 0;
  for (; i + 6 <= rows; i += 6) {
    for (int next = 6; next < 12 && i + next < rows; ++next)
      for (int64_t k = 0; k < depth && k < 64; k += 64 / sizeof(T)) __builtin_prefetch(a[i + next] + a_at + k);
    cb_panels<T, 6>(depth, columns, a + i, a_at, b, c + i, c_at);
  }
  switch (rows - i) {
    case 5: return cb_panels<T, 5>(depth, columns, a + i, a_at, b, c + i, c_at);
    case 4: return cb_panels<T, 4>(depth, columns, a + i, a_at, b, c + i, c_at);
    case 3: return cb_panels<T, 3>(depth, columns, a + i, a_at, b, c + i, c_at);
    case 2: return cb_panels<T, 2>(depth, columns, a + i, a_at, b, c + i, c_at);
    case 1: return cb_panels<T, 1>(depth, columns, a + i, a_at, b, c + i, c_at);
  }
}

// Elements that a packed matrix takes: columns rounded up to whole vectors.
template <class T> INLINE int64_t cb_packed(int64_t depth, int64_t columns) {
  constexpr int64_t W = VECTOR_BYTES / sizeof(T);
  return depth * ((columns + W - 1) / W * W);
}

// Packs B [depth, columns] (stored transposed: [columns, depth]) into panels of two vectors; the last may be of one.
// Elements of another type, which fewer bits are, are widened.
template <class T, bool TRANSPOSED, class S>
static void cb_pack(int64_t depth, int64_t columns, const S* b, T* packed) {
  constexpr int64_t W = VECTOR_BYTES / sizeof(T);
  for (int64_t n = 0; n < columns; n += 2 * W) {
    const int64_t width = columns - n < 2 * W ? columns - n : 2 * W;
    const int64_t lanes = width > W ? 2 * W : W;
    T* panel = packed + n * depth;
    if (width < lanes) memset(panel, 0, depth * lanes * sizeof(T));
    if (TRANSPOSED) {
      for (int64_t j = 0; j < width; ++j)
        for (int64_t k = 0; k < depth; ++k) panel[k * lanes + j] = (T)b[(n + j) * depth + k];
    } else if (sizeof(S) != sizeof(T)) {
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t j = 0; j < width; ++j) panel[k * lanes + j] = (T)b[k * columns + n + j];
    } else if (width == 2 * W) {  // whole vectors: a call of memcpy for each piece would cost as much as a tenth of the product
      typedef typename Vector<T>::type V;
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t j = 0; j < 2 * W; j += W) *(V*)(panel + k * 2 * W + j) = *(const V*)(b + k * columns + n + j);
    } else {
      for (int64_t k = 0; k < depth; ++k) memcpy(panel + k * lanes, b + k * columns + n, width * sizeof(T));
    }
  }
}

// Rows that are fetched while others are worked on.
template <class T> struct Ahead {
  const T* const* x;
  const T* const* y;
  int64_t x_at, y_at, x_size, y_size, rows, next;
  inline void fetch(int64_t count) {
    for (; count > 0 && next < rows; --count, ++next) {
      for (int64_t i = 0; i < x_size; i += 64 / sizeof(T)) __builtin_prefetch(x[next] + x_at + i);
      for (int64_t i = 0; i < y_size; i += 64 / sizeof(T)) __builtin_prefetch(y[next] + y_at + i);
    }
  }
};

// c[i, n..] += sum over rows of x[row][x_at + i] y[row][y_at + n..]; y and c have rows of whole vectors.
template <class T, int MR, int NV>
INLINE void cb_outer_block(int64_t rows, const T* const* x, int64_t x_at, const T* const* y, int64_t y_at, T* c, int64_t c_stride) {
  typedef typename Vector<T>::type V;
  constexpr int W = VECTOR_BYTES / sizeof(T);
  V sum[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) sum[i][j] = *(const V*)(c + i * c_stride + j * W);
  for (int64_t r = 0; r < rows; ++r) {
    const T* left = x[r] + x_at;
    const T* below = y[r] + y_at;
    V right[NV];
    for (int j = 0; j < NV; ++j) right[j] = *(const V*)(below + j * W);
    for (int i = 0; i < MR; ++i)
      for (int j = 0; j < NV; ++j) sum[i][j] += left[i] * right[j];
  }
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) *(V*)(c + i * c_stride + j * W) = sum[i][j];
}

template <class T, int NV>
INLINE void cb_outer_panel(int64_t rows, int64_t depth, const T* const* x, int64_t x_at, const T* const* y, int64_t y_at, T* c, int64_t c_stride, Ahead<T>& ahead, int64_t each) {
  int64_t k = 0;
  for (; k + 6 <= depth; k += 6) {
    ahead.fetch(each);
    cb_outer_block<T, 6, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
  }
  switch (depth - k) {
    case 5: return cb_outer_block<T, 5, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
    case 4: return cb_outer_block<T, 4, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
    case 3: return cb_outer_block<T, 3, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
    case 2: return cb_outer_block<T, 2, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
    case 1: return cb_outer_block<T, 1, NV>(rows, x, x_at + k, y, y_at, c + k * c_stride, c_stride);
  }
}

// C [depth, padded] += X' Y, row r of X being x[r] + x_at and of Y y[r] + y_at, `padded` elements wide. Runs block by block, so
// that both stay in the first cache, and fetches the next block meanwhile.
template <class T>
static void cb_outer(int64_t rows, int64_t depth, int64_t padded, const T* const* x, int64_t x_at, const T* const* y, int64_t y_at, T* c) {
  constexpr int W = VECTOR_BYTES / sizeof(T);
  int64_t block = 24576 / ((depth + padded) * (int64_t)sizeof(T)) / 8 * 8;
  block = block < 16 ? 16 : block > 128 ? 128 : block;
  const int64_t calls = (depth / 6 > 0 ? depth / 6 : 1) * ((padded + 2 * W - 1) / (2 * W)), each = (block + calls - 1) / calls;
  for (int64_t r = 0; r < rows; r += block) {
    const int64_t here = rows - r < block ? rows - r : block, left = rows - r - here;
    Ahead<T> ahead = {x + r + here, y + r + here, x_at, y_at, depth, padded, left < block ? left : block, 0};
    int64_t n = 0;
    for (; n + 2 * W <= padded; n += 2 * W) cb_outer_panel<T, 2>(here, depth, x + r, x_at, y + r, y_at + n, c + n, padded, ahead, each);
    if (n < padded) cb_outer_panel<T, 1>(here, depth, x + r, x_at, y + r, y_at + n, c + n, padded, ahead, each);
  }
}

typedef int32_t index_t;

// traversal pointwise_10_kernel(owner=dst_rel, via=dst_rel:edge->dst_rel) {
//   %0: dst_rel[] f32 = degree(via=dst_rel:edge->dst_rel, to=f32)
//   %1: dst_rel[] f32 = constant(at=dst_rel, value=1.0, to=f32)
//   %2: dst_rel[] f32 = pointwise(%0, %1, function=maximum, scalars=[])
//   %3: dst_rel[] f32 = pointwise(%2, function=reciprocal, scalars=[])
//   store @pointwise_10 = %3
// }
static int RGCNConv_backward_pointwise_10_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_dst_rel = counts[7];
  const int64_t n_edge = counts[3];
  float* __restrict b_pointwise_10 = (float*)buffers[8];
  const index_t* __restrict segments_edge_by_dst_rel = (const index_t*)index[0];
  int failed = 0;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int pieces = 1 * omp_get_num_threads();
    Scratch memory;
    #pragma omp for schedule(static, 1)
    for (int piece = 0; piece < pieces; ++piece) {
      const int64_t first = cb_cut(segments_edge_by_dst_rel, n_dst_rel, piece, pieces);
      const int64_t last = cb_cut(segments_edge_by_dst_rel, n_dst_rel, piece + 1, pieces);
      for (int64_t o = first; o < last; ++o) {
        const int64_t begin = segments_edge_by_dst_rel[o], end = segments_edge_by_dst_rel[o + 1];
        b_pointwise_10[(int64_t)o] = cb_reciprocal(cb_maximum(((float)(segments_edge_by_dst_rel[o + 1] - segments_edge_by_dst_rel[o])), 1.0f));
      }
    }
  }
  return failed;
}
// traversal reduce_11_kernel(owner=src_rel, via=src_rel:edge->src_rel) {
//   %0: edge[64] f32 = load(buffer=@grad_out, via=dst:edge->node, at=edge)
//   %1: edge[] f32 = load(buffer=@pointwise_10, via=dst_rel:edge->dst_rel, at=edge)
//   %2: edge[64] f32 = pointwise(%0, %1, function=mul, scalars=[])
//   %3: src_rel[64] f32 = reduce(%2, via=src_rel:edge->src_rel, op=sum)
//   store @reduce_11 = %3
// }
static int RGCNConv_backward_reduce_11_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_edge = counts[3];
  const int64_t n_src_rel = counts[6];
  const float* __restrict b_grad_out = (const float*)buffers[3];
  const float* __restrict b_pointwise_10 = (const float*)buffers[8];
  float* __restrict b_reduce_11 = (float*)buffers[9];
  const index_t* __restrict segments_edge_by_src_rel = (const index_t*)index[1];
  const index_t* __restrict dst_of_edge_by_src_rel = (const index_t*)index[2];
  const index_t* __restrict dst_rel_of_edge_by_src_rel = (const index_t*)index[3];
  int failed = 0;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int pieces = 1 * omp_get_num_threads();
    Scratch memory;
    #pragma omp for schedule(static, 1)
    for (int piece = 0; piece < pieces; ++piece) {
      const int64_t first = cb_cut(segments_edge_by_src_rel, n_src_rel, piece, pieces);
      const int64_t last = cb_cut(segments_edge_by_src_rel, n_src_rel, piece + 1, pieces);
      for (int64_t o = first; o < last; ++o) {
        const int64_t begin = segments_edge_by_src_rel[o], end = segments_edge_by_src_rel[o + 1];
        alignas(64) float total_1[64];
        for (int i = 0; i < 64; ++i) total_1[i] = (float)0;
        for (int64_t k = begin; k < end; ++k) {
          const float* __restrict row_2 = b_grad_out + (int64_t)dst_of_edge_by_src_rel[k] * 64;
          const int64_t ahead = k + 8 < n_edge ? k + 8 : k;
          __builtin_prefetch((const char*)(b_grad_out + (int64_t)dst_of_edge_by_src_rel[ahead] * 64) + 0);
          __builtin_prefetch((const char*)(b_grad_out + (int64_t)dst_of_edge_by_src_rel[ahead] * 64) + 64);
          __builtin_prefetch((const char*)(b_grad_out + (int64_t)dst_of_edge_by_src_rel[ahead] * 64) + 128);
          __builtin_prefetch((const char*)(b_grad_out + (int64_t)dst_of_edge_by_src_rel[ahead] * 64) + 192);
          #pragma omp simd
          for (int i = 0; i < 64; ++i) total_1[i] += (row_2[i] * b_pointwise_10[(int64_t)dst_rel_of_edge_by_src_rel[k]]);
        }
        #pragma omp simd
        for (int i = 0; i < 64; ++i) b_reduce_11[(int64_t)o * 64 + i] = total_1[i];
      }
    }
  }
  return failed;
}
// gemm linear_12_kernel() {
//   %0: src_rel[64] f32 = load(buffer=@reduce_11, via=none, at=src_rel)
//   %1: src_rel[64] f32 = product(%0, w=@weight, via=rel:src_rel->rel, transpose=true)
//   store @linear_12 = %1
// }
static int RGCNConv_backward_linear_12_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_src_rel = counts[6];
  const float* __restrict b_weight = (const float*)buffers[1];
  const float* __restrict b_reduce_11 = (const float*)buffers[9];
  float* __restrict b_linear_12 = (float*)buffers[10];
  const index_t* __restrict tiles_src_rel_by_rel_512 = (const index_t*)index[4];
  int failed = 0;
  constexpr int64_t K = 64, N = 64, LEAD = 1, MATRICES = 1, TILE = 512;
  const int64_t tiles = counts[13];
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int64_t packed_size = cb_packed<float>(K, N);
    Scratch pack_memory;
    const float* left[TILE];
    float* product[TILE];
    bool ready = pack_memory.reserve(MATRICES * packed_size * sizeof(float) + 64);
    float* packed = (float*)pack_memory.at;
    int64_t packed_for = -1;
    if (!ready) failed = 1;
    #pragma omp for schedule(dynamic, 2)
    for (int64_t t = 0; t < tiles; ++t) {
      if (!ready) continue;
      const int64_t s = tiles_src_rel_by_rel_512[t], begin = tiles_src_rel_by_rel_512[tiles + t], end = tiles_src_rel_by_rel_512[2 * tiles + t];
      if (packed_for != s) {
        for (int64_t m = 0; m < MATRICES; ++m)
          cb_pack<float, true>(K, N, b_weight + (s * MATRICES + m) * K * N, packed + m * packed_size);
        packed_for = s;
      }
      for (int64_t k = begin; k < end; ++k) {
        left[k - begin] = b_reduce_11 + (int64_t)k * 64;
        product[k - begin] = b_linear_12 + (int64_t)k * 64;
      }
      for (int64_t l = 0; l < LEAD; ++l)
        cb_gemm<float>(end - begin, K, N, left, l * K, packed + (MATRICES > 1 ? l : 0) * packed_size, product, l * N);
    }
  }
  return failed;
}
// gemm_reduce grad_weight_kernel(via=rel:src_rel->rel, shared=true) {
//   %0: src_rel[64] f32 = load(buffer=@x, via=src:src_rel->node, at=src_rel)
//   %1: src_rel[64] f32 = load(buffer=@reduce_11, via=none, at=src_rel)
//   left %0
//   right %1
//   store @grad_weight
// }
static int RGCNConv_backward_grad_weight_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_src_rel = counts[6];
  const int64_t n_rel = counts[4];
  const float* __restrict b_x = (const float*)buffers[0];
  const float* __restrict b_reduce_11 = (const float*)buffers[9];
  float* __restrict b_grad_weight = (float*)buffers[5];
  const index_t* __restrict src_of_src_rel = (const index_t*)index[6];
  const index_t* __restrict tiles_src_rel_by_rel_512 = (const index_t*)index[4];
  const index_t* __restrict segments_src_rel_by_rel = (const index_t*)index[5];
  int failed = 0;
  constexpr int64_t K = 64, N = 64, LEAD = 1, MATRICES = 1, TILE = 512;
  constexpr int64_t W = VECTOR_BYTES / sizeof(float), PADDED = (N + W - 1) / W * W, SIZE = MATRICES * K * N;
  const int64_t tiles = counts[13];
  for (int64_t s = 0; s < n_rel; ++s)
    if (segments_src_rel_by_rel[s] == segments_src_rel_by_rel[s + 1]) memset(b_grad_weight + s * SIZE, 0, SIZE * sizeof(*b_grad_weight));
  float* partials = (float*)malloc((tiles + 1) * SIZE * sizeof(float));
  if (!partials) return 1;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    Scratch memory;
    const float* left[TILE];
    const float* right[TILE];
    bool ready = memory.reserve(K * PADDED * sizeof(float) + 64);
    float* __restrict sum = (float*)memory.at;
    if (!ready) failed = 1;
    #pragma omp for schedule(dynamic, 1)
    for (int64_t t = 0; t < tiles; ++t) {
      if (!ready) continue;
      const int64_t s = tiles_src_rel_by_rel_512[t], from = tiles_src_rel_by_rel_512[tiles + t], to = tiles_src_rel_by_rel_512[2 * tiles + t];
      float* out = t == 0 || tiles_src_rel_by_rel_512[t - 1] != s ? b_grad_weight + s * SIZE : partials + t * SIZE;
      for (int64_t k = from; k < to; ++k) {
        left[k - from] = b_x + (int64_t)src_of_src_rel[k] * 64;
        right[k - from] = b_reduce_11 + (int64_t)k * 64;
      }
      for (int64_t m = 0; m < MATRICES; ++m) {
        memset(sum, 0, K * PADDED * sizeof(float));
        for (int64_t l = m; l < (MATRICES > 1 ? m + 1 : LEAD); ++l)
          cb_outer<float>(to - from, K, PADDED, left, l * K, right, l * PADDED, sum);
        for (int64_t k = 0; k < K; ++k) memcpy(out + (m * K + k) * N, sum + k * PADDED, N * sizeof(float));
      }
    }
    #pragma omp for schedule(dynamic, 1)
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t s = tiles_src_rel_by_rel_512[t];
      if (t > 0 && tiles_src_rel_by_rel_512[t - 1] == s) continue;
      for (int64_t u = t + 1; u < tiles && tiles_src_rel_by_rel_512[u] == s; ++u)
        for (int64_t i = 0; i < SIZE; ++i) b_grad_weight[s * SIZE + i] += partials[u * SIZE + i];
    }
  }
  free(partials);
  return failed;
}
// gemm linear_8_kernel() {
//   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
//   %1: node[64] f32 = product(%0, w=@root, via=one:node->one, transpose=true)
//   store @linear_8 = %1
// }
static int RGCNConv_backward_linear_8_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_node = counts[2];
  const float* __restrict b_root = (const float*)buffers[2];
  const float* __restrict b_grad_out = (const float*)buffers[3];
  float* __restrict b_linear_8 = (float*)buffers[11];
  int failed = 0;
  constexpr int64_t K = 64, N = 64, LEAD = 1, MATRICES = 1, TILE = 512;
  const int64_t tiles = (n_node + TILE - 1) / TILE;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int64_t packed_size = cb_packed<float>(K, N);
    Scratch pack_memory;
    const float* left[TILE];
    float* product[TILE];
    bool ready = pack_memory.reserve(MATRICES * packed_size * sizeof(float) + 64);
    float* packed = (float*)pack_memory.at;
    int64_t packed_for = -1;
    if (!ready) failed = 1;
    #pragma omp for schedule(dynamic, 2)
    for (int64_t t = 0; t < tiles; ++t) {
      if (!ready) continue;
      const int64_t s = 0, begin = t * TILE, end = begin + TILE < n_node ? begin + TILE : n_node;
      if (packed_for != s) {
        for (int64_t m = 0; m < MATRICES; ++m)
          cb_pack<float, true>(K, N, b_root + (s * MATRICES + m) * K * N, packed + m * packed_size);
        packed_for = s;
      }
      for (int64_t k = begin; k < end; ++k) {
        left[k - begin] = b_grad_out + (int64_t)k * 64;
        product[k - begin] = b_linear_8 + (int64_t)k * 64;
      }
      for (int64_t l = 0; l < LEAD; ++l)
        cb_gemm<float>(end - begin, K, N, left, l * K, packed + (MATRICES > 1 ? l : 0) * packed_size, product, l * N);
    }
  }
  return failed;
}
// traversal grad_x_kernel(owner=node, via=src:src_rel->node) {
//   %0: node[64] f32 = load(buffer=@linear_8, via=none, at=node)
//   %1: src_rel[64] f32 = load(buffer=@linear_12, via=none, at=src_rel)
//   %2: node[64] f32 = reduce(%1, via=src:src_rel->node, op=sum)
//   %3: node[64] f32 = pointwise(%0, %2, function=add, scalars=[])
//   store @grad_x = %3
// }
static int RGCNConv_backward_grad_x_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_src_rel = counts[6];
  const int64_t n_node = counts[2];
  const float* __restrict b_linear_8 = (const float*)buffers[11];
  const float* __restrict b_linear_12 = (const float*)buffers[10];
  float* __restrict b_grad_x = (float*)buffers[4];
  const index_t* __restrict segments_src_rel_by_src = (const index_t*)index[7];
  const index_t* __restrict order_src_rel_by_src = (const index_t*)index[8];
  int failed = 0;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    const int pieces = 1 * omp_get_num_threads();
    Scratch memory;
    #pragma omp for schedule(static, 1)
    for (int piece = 0; piece < pieces; ++piece) {
      const int64_t first = cb_cut(segments_src_rel_by_src, n_node, piece, pieces);
      const int64_t last = cb_cut(segments_src_rel_by_src, n_node, piece + 1, pieces);
      for (int64_t o = first; o < last; ++o) {
        const int64_t begin = segments_src_rel_by_src[o], end = segments_src_rel_by_src[o + 1];
        alignas(64) float total_1[64];
        for (int i = 0; i < 64; ++i) total_1[i] = (float)0;
        for (int64_t k = begin; k < end; ++k) {
          const int64_t e = order_src_rel_by_src[k];
          const float* __restrict row_2 = b_linear_12 + (int64_t)e * 64;
          const int64_t ahead = k + 8 < n_src_rel ? k + 8 : k;
          __builtin_prefetch((const char*)(b_linear_12 + (int64_t)order_src_rel_by_src[ahead] * 64) + 0);
          __builtin_prefetch((const char*)(b_linear_12 + (int64_t)order_src_rel_by_src[ahead] * 64) + 64);
          __builtin_prefetch((const char*)(b_linear_12 + (int64_t)order_src_rel_by_src[ahead] * 64) + 128);
          __builtin_prefetch((const char*)(b_linear_12 + (int64_t)order_src_rel_by_src[ahead] * 64) + 192);
          #pragma omp simd
          for (int i = 0; i < 64; ++i) total_1[i] += row_2[i];
        }
        #pragma omp simd
        for (int i = 0; i < 64; ++i) b_grad_x[(int64_t)o * 64 + i] = (b_linear_8[(int64_t)o * 64 + i] + total_1[i]);
      }
    }
  }
  return failed;
}
// gemm_reduce grad_root_kernel(via=one:node->one, shared=true) {
//   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
//   %1: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
//   left %0
//   right %1
//   store @grad_root
// }
static int RGCNConv_backward_grad_root_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_node = counts[2];
  const float* __restrict b_x = (const float*)buffers[0];
  const float* __restrict b_grad_out = (const float*)buffers[3];
  float* __restrict b_grad_root = (float*)buffers[6];
  int failed = 0;
  constexpr int64_t K = 64, N = 64, LEAD = 1, MATRICES = 1, TILE = 512;
  constexpr int64_t W = VECTOR_BYTES / sizeof(float), PADDED = (N + W - 1) / W * W, SIZE = MATRICES * K * N;
  const int64_t tiles = (n_node + TILE - 1) / TILE;
  if (tiles == 0) memset(b_grad_root, 0, SIZE * sizeof(*b_grad_root));
  float* partials = (float*)malloc((tiles + 1) * SIZE * sizeof(float));
  if (!partials) return 1;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    Scratch memory;
    const float* left[TILE];
    const float* right[TILE];
    bool ready = memory.reserve(K * PADDED * sizeof(float) + 64);
    float* __restrict sum = (float*)memory.at;
    if (!ready) failed = 1;
    #pragma omp for schedule(dynamic, 1)
    for (int64_t t = 0; t < tiles; ++t) {
      if (!ready) continue;
      const int64_t from = t * TILE, to = from + TILE < n_node ? from + TILE : n_node;
      float* out = t == 0 ? b_grad_root : partials + t * SIZE;
      for (int64_t k = from; k < to; ++k) {
        left[k - from] = b_x + (int64_t)k * 64;
        right[k - from] = b_grad_out + (int64_t)k * 64;
      }
      for (int64_t m = 0; m < MATRICES; ++m) {
        memset(sum, 0, K * PADDED * sizeof(float));
        for (int64_t l = m; l < (MATRICES > 1 ? m + 1 : LEAD); ++l)
          cb_outer<float>(to - from, K, PADDED, left, l * K, right, l * PADDED, sum);
        for (int64_t k = 0; k < K; ++k) memcpy(out + (m * K + k) * N, sum + k * PADDED, N * sizeof(float));
      }
    }
    #pragma omp for schedule(static)
    for (int64_t i = 0; i < SIZE; ++i) {
      for (int64_t u = 1; u < tiles; ++u) b_grad_root[i] += partials[u * SIZE + i];
    }
  }
  free(partials);
  return failed;
}
// traversal grad_bias_kernel(owner=one, via=one:node->one, schedule={split=4096}) {
//   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
//   %1: one[64] f32 = reduce(%0, via=one:node->one, op=sum)
//   store @grad_bias = %1
// }
static int RGCNConv_backward_grad_bias_kernel(void* const* buffers, const void* const* index, const int64_t* counts, int threads) {
  const int64_t n_node = counts[2];
  const float* __restrict b_grad_out = (const float*)buffers[3];
  float* __restrict b_grad_bias = (float*)buffers[7];
  const index_t* __restrict segments_node_by_one = (const index_t*)index[9];
  const index_t* __restrict tiles_node_by_one_4096 = (const index_t*)index[10];
  int failed = 0;
  const int64_t tiles = counts[19];
  char* partials = (char*)aligned_alloc(64, (size_t)(tiles + 1) * 256);
  if (!partials) return 1;
  #pragma omp parallel num_threads(threads) reduction(|: failed)
  {
    Scratch memory;
    #pragma omp for schedule(dynamic, 1)
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t o = tiles_node_by_one_4096[t], begin = tiles_node_by_one_4096[tiles + t], end = tiles_node_by_one_4096[2 * tiles + t];
      char* partial = partials + t * 256;
      alignas(64) float total_1[64];
      for (int i = 0; i < 64; ++i) total_1[i] = (float)0;
      for (int64_t k = begin; k < end; ++k) {
        const float* __restrict row_2 = b_grad_out + (int64_t)k * 64;
        #pragma omp simd
        for (int i = 0; i < 64; ++i) total_1[i] += row_2[i];
      }
      #pragma omp simd
      for (int i = 0; i < 64; ++i) ((float*)(partial + 0))[i] = total_1[i];
      (void)o; (void)partial;
    }
  }
  memset(b_grad_bias, 0, (size_t)1 * 64 * sizeof(*b_grad_bias));
  for (int64_t t = 0; t < tiles; ++t) {
    float* part = (float*)(partials + t * 256 + 0);
    const float* before = (float*)((char*)part - 256);
    auto* out = b_grad_bias + (int64_t)tiles_node_by_one_4096[t] * 64;
    const bool first = t == 0 || tiles_node_by_one_4096[t - 1] != tiles_node_by_one_4096[t];
    for (int i = 0; i < 64; ++i) out[i] = part[i] = first ? part[i] : before[i] + part[i];
  }
  free(partials);
  return failed;
}
// Stage 0 of plan RGCNConv_backward: 8 kernels.
extern "C" int RGCNConv_backward_stage_0(void* const* buffers, const void* const* index, const int64_t* counts, int threads, double* seconds) {
  double start = seconds ? omp_get_wtime() : 0;
  if (RGCNConv_backward_pointwise_10_kernel(buffers, index, counts, threads)) return 1;
  if (seconds) start += seconds[0] = omp_get_wtime() - start;
  if (RGCNConv_backward_reduce_11_kernel(buffers, index, counts, threads)) return 2;
  if (seconds) start += seconds[1] = omp_get_wtime() - start;
  if (RGCNConv_backward_linear_12_kernel(buffers, index, counts, threads)) return 3;
  if (seconds) start += seconds[2] = omp_get_wtime() - start;
  if (RGCNConv_backward_grad_weight_kernel(buffers, index, counts, threads)) return 4;
  if (seconds) start += seconds[3] = omp_get_wtime() - start;
  if (RGCNConv_backward_linear_8_kernel(buffers, index, counts, threads)) return 5;
  if (seconds) start += seconds[4] = omp_get_wtime() - start;
  if (RGCNConv_backward_grad_x_kernel(buffers, index, counts, threads)) return 6;
  if (seconds) start += seconds[5] = omp_get_wtime() - start;
  if (RGCNConv_backward_grad_root_kernel(buffers, index, counts, threads)) return 7;
  if (seconds) start += seconds[6] = omp_get_wtime() - start;
  if (RGCNConv_backward_grad_bias_kernel(buffers, index, counts, threads)) return 8;
  if (seconds) start += seconds[7] = omp_get_wtime() - start;
  return 0;
}
