// Programs over integer tensors, and the numbers that are counted with them: what self-loops, degrees and normalizations are made of.
//
// A value is `lead` rows of `n` elements each, which stand `stride` elements apart. Instructions are carried out in order. What only a
// concatenation takes is deferred to it, and written where it belongs. Whatever PyTorch would refuse, or treat otherwise, as an index out
// of range or lengths that differ, ends the program: the caller then asks PyTorch.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>

namespace integers {

enum Dtype { kInt64, kFloat32, kFloat64, kBool };

constexpr int64_t kItemSize[] = {8, 4, 8, 1};

struct Value {
  int64_t dtype, lead, n, stride;
  char* data;  // of kept values where they go; of others nothing until they are computed
};

enum Operation {
  kRow, kSame, kCompress, kNumbersOf, kRange, kFill, kRepeat, kConcatenate, kFlip, kGather, kScatterAdd, kMaskedFill, kNot, kReciprocalRoot,
  kClampLow, kClampHigh, kAdd, kSubtract, kMultiply, kDivide, kEqual, kUnequal, kLess, kLessOrEqual, kGreater, kGreaterOrEqual
};

// Operands are numbers of values, -1: there is none. The lengths of ranges and of what is filled are those of a value, or beyond all
// values a size.
struct Instruction {
  int64_t operation, out, a, b, c, length, integer, first_part, parts, deferred, swapped;
  double number;
};

// Memory of one call of one thread, kept for the next: fresh pages cost more than what is computed on them. Blocks never move.
class Arena {
 public:
  ~Arena() { free_all(); }

  // nullptr where there is none.
  char* take(int64_t bytes) {
    bytes = (bytes + kAlign) & ~(kAlign - 1);  // something even where nothing is needed
    if (used_ + bytes > size_) {
      const int64_t size = bytes > kBlock ? bytes : kBlock;
      Block* block = static_cast<Block*>(std::malloc(kAlign + size));
      if (block == nullptr) return nullptr;
      block->before = last_;
      last_ = block;
      size_ = size;
      used_ = 0;
    }
    char* found = reinterpret_cast<char*>(last_) + kAlign + used_;
    used_ += bytes;
    return found;
  }

  void reset() {
    if (size_ > kBlock || (last_ != nullptr && last_->before != nullptr)) free_all();
    used_ = 0;
  }

 private:
  static constexpr int64_t kBlock = int64_t{1} << 22, kAlign = 64;

  struct Block {
    Block* before;
  };

  void free_all() {
    while (last_ != nullptr) {
      Block* before = last_->before;
      std::free(last_);
      last_ = before;
    }
    used_ = size_ = 0;
  }

  Block* last_ = nullptr;
  int64_t used_ = 0, size_ = 0;
};

thread_local Arena arena;

template <class T>
inline T* row(const Value& value, int64_t r) {
  return reinterpret_cast<T*>(value.data) + r * value.stride;
}

template <class F>
inline bool by_dtype(int64_t dtype, F f) {
  switch (dtype) {
    case kInt64: return f(int64_t{});
    case kFloat32: return f(float{});
    case kFloat64: return f(double{});
    case kBool: return f(bool{});
  }
  return false;
}

class Program {
 public:
  Program(const Instruction* instructions, Value* values, int64_t inputs, const int64_t* parts, const int64_t* sizes, int64_t count)
      : instructions_(instructions), values_(values), inputs_(inputs), parts_(parts), sizes_(sizes), count_(count) {}

  // Whether everything has been computed.
  bool run() {
    for (int64_t k = 0; k < count_; ++k) {
      const Instruction& i = instructions_[k];
      if (i.deferred) continue;
      if (!measure(i) || !allocate(out(i)) || !compute(i)) return false;
    }
    return true;
  }

 private:
  Value& out(const Instruction& i) { return values_[i.out]; }

  int64_t length(const Instruction& i) const {
    const int64_t values = inputs_ + count_;
    return i.length < values ? values_[i.length].n : sizes_[i.length - values];
  }

  static bool allocate(Value& value) {
    if (value.data == nullptr) value.data = arena.take(kItemSize[value.dtype] * value.lead * value.n);
    return value.data != nullptr;
  }

  // How long the result is; for masks by counting.
  bool measure(const Instruction& i) {
    Value& to = out(i);
    switch (i.operation) {
      case kRow:
      case kSame: {
        const Value& a = values_[i.a];
        if (i.b >= 0 && values_[i.b].n != a.n) return false;
        to.n = a.n, to.stride = a.stride;
        to.data = a.data + i.integer * a.stride * kItemSize[a.dtype];
        return true;
      }
      case kCompress:
      case kNumbersOf: {
        const Value& mask = values_[i.b];
        if (i.operation == kCompress && values_[i.a].n != mask.n) return false;
        const unsigned char* keeps = reinterpret_cast<const unsigned char*>(mask.data);
        int64_t found = 0;
        for (int64_t k = 0; k < mask.n;) {  // short sums of bytes are vectors of bytes
          const int64_t stop = k + 128 < mask.n ? k + 128 : mask.n;
          unsigned char some = 0;
          for (; k < stop; ++k) some += keeps[k] != 0;
          found += some;
        }
        to.n = found;
        break;
      }
      case kRange:
      case kFill:
        to.n = length(i);
        if (to.n < 0) return false;
        break;
      case kConcatenate:
        to.n = 0;
        for (int64_t p = i.first_part; p < i.first_part + i.parts; ++p) {
          const Instruction* made = deferred(parts_[p]);
          if (made != nullptr && !measure(*made)) return false;
          to.n += values_[parts_[p]].n;
        }
        break;
      case kGather:
        to.n = values_[i.b].n;
        break;
      default:
        to.n = values_[i.a].n;
        if (i.operation != kScatterAdd && i.b >= 0 && values_[i.b].n != to.n) return false;
    }
    to.stride = to.n;
    return true;
  }

  const Instruction* deferred(int64_t value) const {
    const Instruction* made = value < inputs_ ? nullptr : instructions_ + (value - inputs_);
    return made != nullptr && made->deferred ? made : nullptr;
  }

  bool compute(const Instruction& i) {
    Value& to = out(i);
    switch (i.operation) {
      case kRow:
      case kSame:
        return true;
      case kConcatenate:
        return concatenate(i);
      case kCompress:
        return by_dtype(to.dtype, [&](auto t) { return compress<decltype(t)>(i); });
      case kNumbersOf: {
        const unsigned char* keeps = reinterpret_cast<const unsigned char*>(values_[i.b].data);
        int64_t* numbers = row<int64_t>(to, 0);
        int64_t at = 0;
        for (int64_t k = 0; k < values_[i.b].n && at < to.n; ++k) {
          numbers[at] = k;
          at += keeps[k] != 0;
        }
        return true;
      }
      case kRange: {
        int64_t* numbers = row<int64_t>(to, 0);
        for (int64_t k = 0; k < to.n; ++k) numbers[k] = i.integer + k;
        return true;
      }
      case kFill:
        return by_dtype(to.dtype, [&](auto t) {
          using T = decltype(t);
          const T value = static_cast<T>(i.number);
          for (int64_t r = 0; r < to.lead; ++r)
            for (int64_t k = 0; k < to.n; ++k) row<T>(to, r)[k] = value;
          return true;
        });
      case kRepeat:
      case kFlip:
        for (int64_t r = 0; r < to.lead; ++r) copy_row(values_[i.a], i.operation == kFlip ? to.lead - 1 - r : 0, to, r);
        return true;
      case kGather:
        return by_dtype(to.dtype, [&](auto t) { return gather<decltype(t)>(i); });
      case kScatterAdd:
        return by_dtype(to.dtype, [&](auto t) { return scatter_add<decltype(t)>(i); });
      case kMaskedFill:
        return by_dtype(to.dtype, [&](auto t) {
          using T = decltype(t);
          const T *a = row<T>(values_[i.a], 0), value = static_cast<T>(i.number);
          const bool* mask = row<bool>(values_[i.b], 0);
          T* result = row<T>(to, 0);
          for (int64_t k = 0; k < to.n; ++k) result[k] = mask[k] ? value : a[k];
          return true;
        });
      default:
        return by_dtype(values_[i.a].dtype, [&](auto t) { return elementwise<decltype(t)>(i); });
    }
  }

  static void copy_row(const Value& from, int64_t r, const Value& to, int64_t s) {
    const int64_t size = kItemSize[to.dtype];
    std::memcpy(to.data + s * to.stride * size, from.data + r * from.stride * size, from.n * size);
  }

  bool concatenate(const Instruction& i) {
    const Value& to = out(i);
    int64_t at = 0;
    for (int64_t p = i.first_part; p < i.first_part + i.parts; ++p) {
      Value& part = values_[parts_[p]];
      char* place = to.data + at * kItemSize[to.dtype];
      if (const Instruction* made = deferred(parts_[p])) {
        part.data = place;
        part.stride = to.stride;
        if (!compute(*made)) return false;
      } else {
        for (int64_t r = 0; r < to.lead; ++r) copy_row(part, r, Value{to.dtype, 1, part.n, to.stride, place}, r);
      }
      at += part.n;
    }
    return true;
  }

  template <class T>
  bool compress(const Instruction& i) {
    const Value &a = values_[i.a], &mask = values_[i.b], &to = out(i);
    const unsigned char* keeps = reinterpret_cast<const unsigned char*>(mask.data);
    for (int64_t r = 0; r < to.lead; ++r) {
      const T* from = row<T>(a, r);
      T* result = row<T>(to, r);
      int64_t at = 0;
      if (a.n - to.n <= a.n / 32) {  // few are left out, as self-loops: what stands between them is copied at once
        for (int64_t k = 0; k < a.n;) {
          const void* found = std::memchr(keeps + k, 0, a.n - k);
          int64_t stop = found == nullptr ? a.n : static_cast<const unsigned char*>(found) - keeps;
          if (stop - k > to.n - at) stop = k + to.n - at;  // should somebody write to the mask meanwhile
          std::memcpy(result + at, from + k, (stop - k) * sizeof(T));
          at += stop - k;
          k = stop + 1;
        }
        continue;
      }
      // Which elements are kept no processor can guess, so nothing branches on it.
      for (int64_t k = 0; k < a.n && at < to.n; ++k) {
        result[at] = from[k];
        at += keeps[k] != 0;
      }
    }
    return true;
  }

  template <class T>
  bool gather(const Instruction& i) {
    const Value &table = values_[i.a], &at = values_[i.b], &to = out(i);
    const int64_t* index = row<int64_t>(at, 0);
    const T* from = row<T>(table, 0);
    T* result = row<T>(to, 0);
    const int64_t low = i.integer;  // 0, or the length below 0 where indices count from the end
    for (int64_t k = 0; k < to.n; ++k) {
      const int64_t given = index[k], found = given < 0 && low ? given + table.n : given;
      if (found < 0 || found >= table.n) return false;
      result[k] = from[found];
    }
    return true;
  }

  template <class T>
  bool scatter_add(const Instruction& i) {
    const Value &a = values_[i.a], &at = values_[i.b], &values = values_[i.c], &to = out(i);
    if (i.integer ? at.n != values.n : at.n > values.n) return false;
    const int64_t* index = row<int64_t>(at, 0);
    const T* from = row<T>(values, 0);
    T* result = row<T>(to, 0);
    copy_row(a, 0, to, 0);
    for (int64_t k = 0; k < at.n; ++k) {
      const int64_t found = index[k];
      if (found < 0 || found >= to.n) return false;
      result[found] = static_cast<T>(result[found] + from[k]);
    }
    return true;
  }

  // Of one or two operands, the second an array or a number.
  template <class T>
  bool elementwise(const Instruction& i) {
    const Value &a = values_[i.a], &to = out(i);
    const T number = std::is_integral_v<T> ? static_cast<T>(i.integer) : static_cast<T>(i.number);
    for (int64_t r = 0; r < to.lead; ++r) {
      const T* x = row<T>(a, r);
      const T* y = i.b < 0 ? nullptr : row<T>(values_[i.b], r);
      if (!(y == nullptr ? apply<T>(i, to, r, x, [=](int64_t) { return number; }) : apply<T>(i, to, r, x, [=](int64_t k) { return y[k]; })))
        return false;
    }
    return true;
  }

  template <class T, class Y>
  bool apply(const Instruction& i, const Value& to, int64_t r, const T* x, Y y) {
    const auto store = [&](auto f) {
      using R = decltype(f(T{}, T{}));
      R* __restrict result = row<R>(to, r);
      if (i.swapped)
        for (int64_t k = 0; k < to.n; ++k) result[k] = f(y(k), x[k]);
      else
        for (int64_t k = 0; k < to.n; ++k) result[k] = f(x[k], y(k));
      return true;
    };
    switch (i.operation) {
      case kEqual: return store([](T p, T q) -> bool { return p == q; });
      case kUnequal: return store([](T p, T q) -> bool { return p != q; });
      case kLess: return store([](T p, T q) -> bool { return p < q; });
      case kLessOrEqual: return store([](T p, T q) -> bool { return p <= q; });
      case kGreater: return store([](T p, T q) -> bool { return p > q; });
      case kGreaterOrEqual: return store([](T p, T q) -> bool { return p >= q; });
    }
    if constexpr (std::is_same_v<T, bool>) {
      return i.operation == kNot && store([](bool p, bool) -> bool { return !p; });
    } else {
      switch (i.operation) {  // NaN stays what it is
        case kClampLow: return store([](T p, T q) -> T { return p < q ? q : p; });
        case kClampHigh: return store([](T p, T q) -> T { return p > q ? q : p; });
        case kAdd: return store([](T p, T q) -> T { return wrapped<T>(p, q, std::plus<>()); });
        case kSubtract: return store([](T p, T q) -> T { return wrapped<T>(p, q, std::minus<>()); });
        case kMultiply: return store([](T p, T q) -> T { return wrapped<T>(p, q, std::multiplies<>()); });
      }
      if constexpr (std::is_floating_point_v<T>) {
        switch (i.operation) {
          case kDivide: return store([](T p, T q) -> T { return p / q; });
          case kReciprocalRoot: return store([](T p, T) -> T { return T(1) / std::sqrt(p); });
        }
      }
    }
    return false;
  }

  // Integers that overflow wrap around, as PyTorch's do.
  template <class T, class F>
  static T wrapped(T p, T q, F f) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(f(static_cast<uint64_t>(p), static_cast<uint64_t>(q)));
    else
      return f(p, q);
  }

  const Instruction* instructions_;
  Value* values_;
  int64_t inputs_;
  const int64_t* parts_;
  const int64_t* sizes_;
  int64_t count_;
};

}  // namespace integers

// Computes the values after the first `inputs`. Returns 1 where PyTorch has to be asked.
extern "C" int compute_integers(const integers::Instruction* instructions, integers::Value* values, int64_t inputs, const int64_t* parts,
                                const int64_t* sizes, int64_t count) {
  const bool is_done = integers::Program(instructions, values, inputs, parts, sizes, count).run();
  integers::arena.reset();
  return is_done ? 0 : 1;
}

// Copies ids into the narrower integers of a graph, and finds the least and the greatest.
extern "C" void narrow_ids(const int64_t* ids, int64_t n, int32_t* narrow, int64_t* bounds) {
  int64_t low = INT64_MAX, high = INT64_MIN;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t id = ids[k];
    narrow[k] = static_cast<int32_t>(id);
    low = id < low ? id : low;
    high = id > high ? id : high;
  }
  bounds[0] = low, bounds[1] = high;
}
