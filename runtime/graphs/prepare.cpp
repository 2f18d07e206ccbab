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

// Memory of one thread between two calls: fresh pages cost more than the sort of a small graph. What is large goes back to the system.
constexpr size_t kKeptBytes = size_t{1} << 22;

enum Purpose { kCounts, kFirst, kSecond, kThird, kBlocks, kPurposes };

struct Room {
  void* memory = nullptr;
  size_t size = 0;
  ~Room() { std::free(memory); }
};

thread_local Room rooms[kPurposes];

// Uninitialized memory for a purpose, for which nothing else of this thread needs any meanwhile; nullptr where there is none.
template <class T>
T* room(Purpose purpose, int64_t items) {
  Room& mine = rooms[purpose];
  const size_t size = sizeof(T) * static_cast<size_t>(items);
  if (mine.size < size) {
    std::free(mine.memory);
    mine.memory = std::malloc(size);
    mine.size = mine.memory == nullptr ? 0 : size;
  }
  return static_cast<T*>(mine.memory);
}

void tidy() {
  for (Room& mine : rooms)
    if (mine.size > kKeptBytes) {
      std::free(mine.memory);
      mine = Room();
    }
}

// Counting sort of `n` items into `rows` buckets: `key(i)` is the bucket of item `i`, `place(i, position)` puts it where it belongs.
// Each thread counts one block of items; the items of a bucket in a block follow those of earlier blocks. Returns 1 without memory.
template <class I, class Key, class Place>
int counting_sort(int64_t n, int64_t rows, int threads, I* segments, Key key, Place place) {
  int blocks = useful_threads(threads, n);
  if (rows > n / 4) blocks = 1;  // the tables of counts would cost more than the items
  I* counts = room<I>(kCounts, blocks * (rows + 1));
  if (counts == nullptr) return 1;
  std::memset(counts, 0, sizeof(I) * blocks * (rows + 1));
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

// Whether a table with an entry for each pair that there may be is worth it.
inline bool is_dense(int64_t n, int64_t nodes, int64_t relations) { return nodes * relations <= 8 * n + 1024; }

// How many different (relation, node) pairs there are; -1 where only sorting them would tell, -2 without memory.
template <class I>
int64_t count_pairs(const I* node, const I* relation, int64_t n, int64_t nodes, int64_t relations) {
  if (!is_dense(n, nodes, relations)) return -1;
  const int64_t keys = nodes * relations;
  unsigned char* occurs = room<unsigned char>(kFirst, keys + 1);
  if (occurs == nullptr) return -2;
  std::memset(occurs, 0, keys);
  for (int64_t i = 0; i < n; ++i) occurs[static_cast<int64_t>(relation[i]) * nodes + node[i]] = 1;
  int64_t found = 0;
  for (int64_t k = 0; k < keys; ++k) found += occurs[k];
  tidy();
  return found;
}

// The same of both ends of the edges, each on a thread of its own where that is worth it.
template <class I>
void count_both(const I* source, const I* destination, const I* relation, int64_t n, int64_t sources, int64_t destinations,
                int64_t relations, int threads, int64_t* found) {
#pragma omp parallel for num_threads(2) schedule(static, 1) if (useful_threads(threads, n) > 1)
  for (int end = 0; end < 2; ++end)
    found[end] = end == 0 ? count_pairs<I>(source, relation, n, sources, relations)
                          : count_pairs<I>(destination, relation, n, destinations, relations);
}

// `out[i] = table[at(i)]`, where `out` is no other array.
template <class I, class At>
inline void gather(const I* __restrict table, int64_t n, I* __restrict out, At at) {
  for (int64_t i = 0; i < n; ++i) out[i] = table[at(i)];
}

// The pairs by a table of all that there may be. Which of them occur no processor can guess, so nothing branches on it.
template <class I>
int64_t dense_pairs(const I* node, const I* relation, int64_t n, int64_t nodes, int64_t relations, I* of_edge, I* order, I* pair_node,
                    I* pair_relation, I* segments) {
  const int64_t keys = nodes * relations;
  I* table = room<I>(kFirst, keys + 1);  // how many edges each has, then its number
  I* next = room<I>(kSecond, n + 1);
  I* found = room<I>(kThird, n + 1);
  if (table == nullptr || next == nullptr || found == nullptr) return -1;
  std::memset(table, 0, sizeof(I) * keys);
  for (int64_t i = 0; i < n; ++i) ++table[static_cast<int64_t>(relation[i]) * nodes + node[i]];
  int64_t pair = 0;
  I at = 0;
  for (int64_t r = 0; r < relations; ++r) {
    I* mine = table + r * nodes;
    const int64_t first = pair;
    for (int64_t v = 0; v < nodes; ++v) {
      const I edges = mine[v];
      mine[v] = static_cast<I>(pair);
      found[pair] = static_cast<I>(v);
      next[pair] = at;
      at += edges;
      pair += edges != 0;
    }
    for (int64_t p = first; p < pair; ++p) pair_relation[p] = static_cast<I>(r);
  }
  std::memcpy(pair_node, found, sizeof(I) * pair);
  std::memcpy(segments, next, sizeof(I) * pair);
  segments[pair] = at;
  // Two loops: in one, what is written to one array might be what the next edge reads of another, for all that the compiler knows.
  gather(table, n, of_edge, [=](int64_t i) { return static_cast<int64_t>(relation[i]) * nodes + node[i]; });
  for (int64_t i = 0; i < n; ++i) order[next[of_edge[i]]++] = static_cast<I>(i);
  return pair;
}

// The distinct (relation, node) pairs in order: sorts by node, then by relation, and numbers what is different. The edges travel whole,
// so that both sorts read in sequence. `pair_node` and `pair_relation` have room for `n` pairs, `segments` for one more. Returns the
// number of pairs, -1 without memory.
template <class I>
int64_t pairs(const I* node, const I* relation, int64_t n, int64_t nodes, int64_t relations, int threads, I* of_edge, I* order,
              I* pair_node, I* pair_relation, I* segments) {
  if (is_dense(n, nodes, relations))
    return dense_pairs(node, relation, n, nodes, relations, of_edge, order, pair_node, pair_relation, segments);
  const int blocks = useful_threads(threads, n);
  Edge<I>* by_node = room<Edge<I>>(kFirst, n + 1);
  Edge<I>* edges = room<Edge<I>>(kSecond, n + 1);
  int64_t* first = room<int64_t>(kBlocks, blocks + 1);
  int64_t found = -1;
  if (by_node != nullptr && edges != nullptr && first != nullptr &&
      counting_sort<I>(
          n, nodes, threads, nullptr, [=](int64_t i) { return node[i]; },
          [=](int64_t i, I at) { by_node[at] = {static_cast<I>(i), node[i], relation[i]}; }) == 0 &&
      counting_sort<I>(
          n, relations, threads, nullptr, [=](int64_t i) { return by_node[i].relation; },
          [=](int64_t i, I at) { edges[at] = by_node[i]; }) == 0) {
    first[0] = 0;
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

// Where the tiles of each segment start in a table of tiles.
template <class I>
void tile_starts(const I* segments, int64_t owners, int64_t rows, I* out) {
  out[0] = 0;
  for (int64_t k = 0; k < owners; ++k) out[k + 1] = out[k] + static_cast<I>((segments[k + 1] - segments[k] + rows - 1) / rows);
}

// One step of a recipe: `a`, `b` and `out` are numbers of arrays, `rows` and `more` those of sizes.
enum Operation { kSort, kCount, kPairs, kTake, kInvert, kTiles, kTileStarts, kZeros, kNumbers, kWhole };

struct Step {
  int64_t operation, a, b, rows, more, out[5];
};

// Does a step. `lengths` has those of all arrays, for tables of tiles the most that there may be, which becomes what there is.
template <class I>
int run(const Step& step, I* const* arrays, int64_t* lengths, const int64_t* sizes, int threads) {
  const I* a = arrays[step.a];
  const int64_t n = lengths[step.a], rows = sizes[step.rows];
  I* out = arrays[step.out[0]];
  switch (step.operation) {
    case kSort:
      return sort<I>(a, n, rows, threads, out, arrays[step.out[1]]);
    case kCount:
      count<I>(a, n, rows, out);
      return 0;
    case kPairs:
      return pairs<I>(a, arrays[step.b], n, rows, sizes[step.more], threads, out, arrays[step.out[1]], arrays[step.out[2]],
                      arrays[step.out[3]], arrays[step.out[4]]) < 0;
    case kTake:
      take<I>(a, arrays[step.b], lengths[step.b], threads, out);
      return 0;
    case kInvert:
      invert<I>(a, n, threads, out);
      return 0;
    case kTiles: {
      const int64_t tiles = count_tiles<I>(a, n - 1, rows);
      fill_tiles<I>(a, n - 1, rows, tiles, out);
      lengths[step.out[0]] = 3 * tiles;
      return 0;
    }
    case kTileStarts:
      tile_starts<I>(a, n - 1, rows, out);
      return 0;
    case kZeros:
      std::memset(out, 0, sizeof(I) * rows);
      return 0;
    case kNumbers:
      for (int64_t i = 0; i < rows; ++i) out[i] = static_cast<I>(i);
      return 0;
    case kWhole:
      out[0] = 0;
      out[1] = static_cast<I>(rows);
      return 0;
  }
  return 2;
}

// Does the steps of a recipe, stage by stage: `stages` are where each begins, and the end. The steps of one stage need nothing of each
// other. Returns 1 without memory.
template <class I>
int prepare(const Step* steps, const int64_t* stages, int64_t count, I* const* arrays, int64_t* lengths, const int64_t* sizes,
            int64_t edges, int threads) {
  const int useful = useful_threads(threads, edges);
  int failed = 0;
  for (int64_t s = 0; s < count; ++s) {
    const int64_t first = stages[s], stop = stages[s + 1];
    const bool together = useful > 1 && stop - first > 1;
#pragma omp parallel for num_threads(useful) schedule(dynamic, 1) reduction(| : failed) if (together)
    for (int64_t i = first; i < stop; ++i) {
      failed |= run<I>(steps[i], arrays, lengths, sizes, together ? 1 : useful);
      tidy();
    }
    if (failed) break;
  }
  return failed;
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
    const int failed = sort<I>(keys, n, rows, threads, order, segments);                                                         \
    tidy();                                                                                                                      \
    return failed;                                                                                                               \
  }                                                                                                                              \
  extern "C" void count_##SUFFIX(const I* keys, int64_t n, int64_t rows, I* segments) {                                          \
    count<I>(keys, n, rows, segments);                                                                                           \
  }                                                                                                                              \
  extern "C" int64_t pairs_##SUFFIX(const I* node, const I* relation, int64_t n, int64_t nodes, int64_t relations, int threads,  \
                                    I* of_edge, I* order, I* pair_node, I* pair_relation, I* segments) {                         \
    const int64_t found =                                                                                                        \
        pairs<I>(node, relation, n, nodes, relations, threads, of_edge, order, pair_node, pair_relation, segments);              \
    tidy();                                                                                                                      \
    return found;                                                                                                                \
  }                                                                                                                              \
  extern "C" int64_t count_pairs_##SUFFIX(const I* node, const I* relation, int64_t n, int64_t nodes, int64_t relations) {         \
    return count_pairs<I>(node, relation, n, nodes, relations);                                                                  \
  }                                                                                                                              \
  extern "C" void count_both_##SUFFIX(const I* source, const I* destination, const I* relation, int64_t n, int64_t sources,      \
                                      int64_t destinations, int64_t relations, int threads, int64_t* found) {                    \
    count_both<I>(source, destination, relation, n, sources, destinations, relations, threads, found);                           \
  }                                                                                                                              \
  extern "C" int prepare_##SUFFIX(const Step* steps, const int64_t* stages, int64_t count, I* const* arrays, int64_t* lengths,   \
                                  const int64_t* sizes, int64_t edges, int threads) {                                            \
    return prepare<I>(steps, stages, count, arrays, lengths, sizes, edges, threads);                                             \
  }                                                                                                                              \
  extern "C" void take_##SUFFIX(const I* table, const I* at, int64_t n, int threads, I* out) {                                   \
    take<I>(table, at, n, threads, out);                                                                                         \
  }                                                                                                                              \
  extern "C" void invert_##SUFFIX(const I* order, int64_t n, int threads, I* out) { invert<I>(order, n, threads, out); }         \
  extern "C" int64_t count_tiles_##SUFFIX(const I* segments, int64_t owners, int64_t rows) {                                     \
    return count_tiles<I>(segments, owners, rows);                                                                               \
  }                                                                                                                              \
  extern "C" void tile_starts_##SUFFIX(const I* segments, int64_t owners, int64_t rows, I* out) {                              \
    tile_starts<I>(segments, owners, rows, out);                                                                                 \
  }                                                                                                                              \
  extern "C" void fill_tiles_##SUFFIX(const I* segments, int64_t owners, int64_t rows, int64_t tiles, I* out) {                  \
    fill_tiles<I>(segments, owners, rows, tiles, out);                                                                           \
  }

COLUMBA_PREPARE(int32_t, i32)
COLUMBA_PREPARE(int64_t, i64)

extern "C" uint64_t checksum(const char* data, int64_t size, int threads) { return checksum_of(data, size, threads); }
