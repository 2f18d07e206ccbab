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

// Brings a row of a tile to the second cache: one that is gathered, or of which each head reads a part of its own.
template <class T> INLINE void cb_fetch(const T* row, int64_t size) {
  for (int64_t i = 0; i < size; i += 64 / sizeof(T)) __builtin_prefetch(row + i, 0, 2);
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
    __asm__("" : "+r"(left));  // else an offset of each element from x[r] takes a register
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
