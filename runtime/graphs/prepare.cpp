// Index arrays of a graph by counting sorts: stable, in linear time, the same for any number of threads.
//
// Every function exists for 32-bit and for 64-bit indices. Arrays hold valid ids: the graph has checked them.

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int64_t kSerialRows = 1 << 15;  // fewer rows than this are not worth a second thread

inline int useful_threads(int threads, int64_t rows) { return rows < kSerialRows || threads < 1 ? 1 : threads; }

inline int64_t block_start(int64_t rows, int block, int blocks) { return rows * block / blocks; }

// Counting sort of `n` items into `rows` buckets: `key(i)` is the bucket of item `i`, `place(i, position)` puts it where it belongs.
// Each thread counts one block of items; the items of a bucket in a block follow those of earlier blocks. Returns 1 without memory.
template <class I, class Key, class Place>
int counting_sort(int64_t n, int64_t rows, int threads, I* segments, Key key, Place place) {
  int blocks = useful_threads(threads, n);
  if (rows > n / 4) blocks = 1;  // the tables of counts would cost more than the items
  I* counts = static_cast<I*>(std::calloc(static_cast<size_t>(blocks) * (rows + 1), sizeof(I)));
  if (counts == nullptr) return 1;
#pragma omp parallel for num_threads(blocks) schedule(static, 1) if (blocks > 1)
  for (int b = 0; b < blocks; ++b) {
    I* mine = counts + static_cast<int64_t>(b) * (rows + 1);
    const int64_t stop = block_start(n, b + 1, blocks);
    for (int64_t i = block_start(n, b, blocks); i < stop; ++i) ++mine[key(i)];
  }
  I at = 0;
  for (int64_t k = 0; k < rows; ++k) {
    if (segments != nullptr) segments[k] = at;
    for (int b = 0; b < blocks; ++b) {
      I& count = counts[static_cast<int64_t>(b) * (rows + 1) + k];
      const I here = count;
      count = at;
      at += here;
    }
  }
  if (segments != nullptr) segments[rows] = at;
#pragma omp parallel for num_threads(blocks) schedule(static, 1) if (blocks > 1)
  for (int b = 0; b < blocks; ++b) {
    I* mine = counts + static_cast<int64_t>(b) * (rows + 1);
    const int64_t stop = block_start(n, b + 1, blocks);
    for (int64_t i = block_start(n, b, blocks); i < stop; ++i) place(i, mine[key(i)]++);
  }
  std::free(counts);
  return 0;
}

template <class I>
int sort(const I* keys, int64_t n, int64_t rows, int threads, I* order, I* segments) {
  return counting_sort<I>(
      n, rows, threads, segments, [=](int64_t i) { return keys[i]; }, [=](int64_t i, I at) { order[at] = static_cast<I>(i); });
}

template <class I>
void count(const I* keys, int64_t n, int64_t rows, I* segments) {
  std::memset(segments, 0, sizeof(I) * (rows + 1));
  for (int64_t i = 0; i < n; ++i) ++segments[keys[i] + 1];
  for (int64_t k = 0; k < rows; ++k) segments[k + 1] += segments[k];
}

template <class I>
struct Edge {
  I number, node, relation;
};

template <class I>
inline bool starts_pair(const Edge<I>* edges, int64_t i) {
  return i == 0 || edges[i].node != edges[i - 1].node || edges[i].relation != edges[i - 1].relation;
}

// The distinct (relation, node) pairs in order: sorts by node, then by relation, and numbers what is different. The edges travel whole,
// so that both sorts read in sequence. `pair_node` and `pair_relation` have room for `n` pairs, `segments` for one more. Returns the
// number of pairs, -1 without memory.
template <class I>
int64_t pairs(const I* node, const I* relation, int64_t n, int64_t nodes, int64_t relations, int threads, I* of_edge, I* order,
              I* pair_node, I* pair_relation, I* segments) {
  const int blocks = useful_threads(threads, n);
  Edge<I>* by_node = static_cast<Edge<I>*>(std::malloc(sizeof(Edge<I>) * (n + 1)));
  Edge<I>* edges = static_cast<Edge<I>*>(std::malloc(sizeof(Edge<I>) * (n + 1)));
  int64_t* first = static_cast<int64_t*>(std::calloc(static_cast<size_t>(blocks) + 1, sizeof(int64_t)));
  int64_t found = -1;
  if (by_node != nullptr && edges != nullptr && first != nullptr &&
      counting_sort<I>(
          n, nodes, threads, nullptr, [=](int64_t i) { return node[i]; },
          [=](int64_t i, I at) { by_node[at] = {static_cast<I>(i), node[i], relation[i]}; }) == 0 &&
      counting_sort<I>(
          n, relations, threads, nullptr, [=](int64_t i) { return by_node[i].relation; },
          [=](int64_t i, I at) { edges[at] = by_node[i]; }) == 0) {
#pragma omp parallel for num_threads(blocks) schedule(static, 1) if (blocks > 1)
    for (int b = 0; b < blocks; ++b) {
      int64_t starts = 0;
      const int64_t stop = block_start(n, b + 1, blocks);
      for (int64_t i = block_start(n, b, blocks); i < stop; ++i) starts += starts_pair(edges, i);
      first[b + 1] = starts;
    }
    for (int b = 0; b < blocks; ++b) first[b + 1] += first[b];
#pragma omp parallel for num_threads(blocks) schedule(static, 1) if (blocks > 1)
    for (int b = 0; b < blocks; ++b) {
      int64_t pair = first[b] - 1;
      const int64_t stop = block_start(n, b + 1, blocks);
      for (int64_t i = block_start(n, b, blocks); i < stop; ++i) {
        const Edge<I> edge = edges[i];
        if (starts_pair(edges, i)) {
          ++pair;
          pair_node[pair] = edge.node;
          pair_relation[pair] = edge.relation;
          segments[pair] = static_cast<I>(i);
        }
        order[i] = edge.number;
        of_edge[edge.number] = static_cast<I>(pair);
      }
    }
    found = first[blocks];
    segments[found] = static_cast<I>(n);
  }
  std::free(by_node);
  std::free(edges);
  std::free(first);
  return found;
}

template <class I>
void take(const I* table, const I* at, int64_t n, int threads, I* out) {
#pragma omp parallel for num_threads(useful_threads(threads, n)) schedule(static) if (n >= kSerialRows)
  for (int64_t i = 0; i < n; ++i) out[i] = table[at[i]];
}

template <class I>
void invert(const I* order, int64_t n, int threads, I* out) {
#pragma omp parallel for num_threads(useful_threads(threads, n)) schedule(static) if (n >= kSerialRows)
  for (int64_t i = 0; i < n; ++i) out[order[i]] = static_cast<I>(i);
}

template <class I>
int64_t count_tiles(const I* segments, int64_t owners, int64_t rows) {
  int64_t tiles = 0;
  for (int64_t k = 0; k < owners; ++k) tiles += (segments[k + 1] - segments[k] + rows - 1) / rows;
  return tiles;
}

// `out` is [3, tiles]: owner, first position, the position after the last.
template <class I>
void fill_tiles(const I* segments, int64_t owners, int64_t rows, int64_t tiles, I* out) {
  int64_t t = 0;
  for (int64_t k = 0; k < owners; ++k) {
    for (int64_t start = segments[k]; start < segments[k + 1]; start += rows, ++t) {
      const int64_t stop = start + rows;
      out[t] = static_cast<I>(k);
      out[tiles + t] = static_cast<I>(start);
      out[2 * tiles + t] = stop < segments[k + 1] ? static_cast<I>(stop) : segments[k + 1];
    }
  }
}

// A checksum of memory: blocks are hashed each by itself, in lanes of 64 bits that every word changes one-to-one.

typedef uint64_t Lanes __attribute__((vector_size(32)));

constexpr int kAccumulators = 8;
constexpr int64_t kHashBlock = 1 << 16;  // bytes
constexpr uint64_t kOdd = 0x9E3779B97F4A7C15ull;

inline uint64_t mixed(uint64_t h, uint64_t word) {
  h = (h ^ word) * kOdd;
  return h ^ (h >> 29);
}

inline uint64_t block_checksum(const char* data, int64_t size, uint64_t seed) {
  Lanes lanes[kAccumulators];
  for (int k = 0; k < kAccumulators; ++k)
    for (int l = 0; l < 4; ++l) lanes[k][l] = seed + 4 * k + l;
  int64_t at = 0;
  for (; at + static_cast<int64_t>(sizeof lanes) <= size; at += sizeof lanes)
#pragma GCC unroll 8
    for (int k = 0; k < kAccumulators; ++k) {  // unrolled, so that the lanes stay in registers: as fast as memory is read
      Lanes words;
      std::memcpy(&words, data + at + sizeof(Lanes) * k, sizeof words);
      words ^= lanes[k];
      words += words << 21;
      lanes[k] = words ^ (words >> 29);
    }
  uint64_t found = seed;
  for (int k = 0; k < kAccumulators; ++k)
    for (int l = 0; l < 4; ++l) found = mixed(found, lanes[k][l]);
  for (; at < size; at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, data + at, size - at < 8 ? size - at : 8);
    found = mixed(found, word);
  }
  return found;
}

uint64_t checksum_of(const char* data, int64_t size, int threads) {
  const int64_t blocks = (size + kHashBlock - 1) / kHashBlock;
  const int useful = blocks < 4 || threads < 1 ? 1 : threads;
  uint64_t total = 0;
#pragma omp parallel for num_threads(useful) schedule(static) reduction(+ : total) if (useful > 1)
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t start = b * kHashBlock, rest = size - start;
    total += block_checksum(data + start, rest < kHashBlock ? rest : kHashBlock, (b + 1) * kOdd);
  }
  return mixed(total, size);
}

}  // namespace

#define COLUMBA_PREPARE(I, SUFFIX)                                                                                               \
  extern "C" int sort_##SUFFIX(const I* keys, int64_t n, int64_t rows, int threads, I* order, I* segments) {                     \
    return sort<I>(keys, n, rows, threads, order, segments);                                                                     \
  }                                                                                                                              \
  extern "C" void count_##SUFFIX(const I* keys, int64_t n, int64_t rows, I* segments) {                                          \
    count<I>(keys, n, rows, segments);                                                                                           \
  }                                                                                                                              \
  extern "C" int64_t pairs_##SUFFIX(const I* node, const I* relation, int64_t n, int64_t nodes, int64_t relations, int threads,  \
                                    I* of_edge, I* order, I* pair_node, I* pair_relation, I* segments) {                         \
    return pairs<I>(node, relation, n, nodes, relations, threads, of_edge, order, pair_node, pair_relation, segments);           \
  }                                                                                                                              \
  extern "C" void take_##SUFFIX(const I* table, const I* at, int64_t n, int threads, I* out) {                                   \
    take<I>(table, at, n, threads, out);                                                                                         \
  }                                                                                                                              \
  extern "C" void invert_##SUFFIX(const I* order, int64_t n, int threads, I* out) { invert<I>(order, n, threads, out); }         \
  extern "C" int64_t count_tiles_##SUFFIX(const I* segments, int64_t owners, int64_t rows) {                                     \
    return count_tiles<I>(segments, owners, rows);                                                                               \
  }                                                                                                                              \
  extern "C" void fill_tiles_##SUFFIX(const I* segments, int64_t owners, int64_t rows, int64_t tiles, I* out) {                  \
    fill_tiles<I>(segments, owners, rows, tiles, out);                                                                           \
  }

COLUMBA_PREPARE(int32_t, i32)
COLUMBA_PREPARE(int64_t, i64)

extern "C" uint64_t checksum(const char* data, int64_t size, int threads) { return checksum_of(data, size, threads); }
