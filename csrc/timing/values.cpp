#include "timing/values.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace mkwrap::timing {
namespace {

// Work for which a thread is worth its start (some 20 µs), and threads beyond which memory is the
// limit.
constexpr std::size_t kBytesPerThread = std::size_t{1} << 20;
constexpr std::size_t kMostThreads = 8;
// Bytes that are looked at as a whole first: results of variants are equal in most places. A
// multiple of every item size.
constexpr std::size_t kBlock = 4096;

struct Range {
  std::size_t begin;
  std::size_t end;
};

std::size_t processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<std::size_t>(std::max(CPU_COUNT(&set), 1));
}

// Cut `bytes` at multiples of kBlock into one range per thread.
std::vector<Range> shares(std::size_t bytes) {
  const std::size_t count =
      std::clamp<std::size_t>(bytes / kBytesPerThread, 1, std::min(processors(), kMostThreads));
  const std::size_t share = (bytes / count + kBlock - 1) / kBlock * kBlock;
  std::vector<Range> ranges;
  for (std::size_t begin = 0; begin < bytes; begin += share)
    ranges.push_back({begin, std::min(begin + share, bytes)});
  return ranges;
}

// Call work(k) for each k below count, the first in this thread.
template <class Work>
void in_parallel(std::size_t count, const Work& work) {
  std::vector<std::thread> threads;
  for (std::size_t k = 1; k < count; ++k) threads.emplace_back([&work, k] { work(k); });
  if (count > 0) work(0);
  for (std::thread& thread : threads) thread.join();
}

// SplitMix64 of a counter (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
// 2014).
std::uint64_t hash(std::uint64_t seed, std::uint64_t counter) {
  std::uint64_t z = (seed << 40) + (counter + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// A uniform 16-bit number has the mean 32767.5 and the variance 2^32 / 12.
float normal(std::uint64_t bits) {
  constexpr float kMean = 4 * 32767.5F;
  constexpr float kDeviation = 37837.227F;
  const std::uint64_t sum =
      (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
  return (static_cast<float>(sum) - kMean) / kDeviation;
}

// The 16-bit floats in memory: IEEE binary16 and the upper half of a float.
struct Half {
  std::uint16_t bits;
};
struct Brain {
  std::uint16_t bits;
};

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

double to_double(double x) { return x; }
double to_double(float x) { return static_cast<double>(x); }
double to_double(Brain x) {
  return to_double(same_bits<float>(static_cast<std::uint32_t>(x.bits) << 16));
}
double to_double(Half x) {
  // Moved into place, the exponent is 112 too small; the product is exact, subnormals included.
  const std::uint32_t moved = (x.bits & 0x7fffU) << 13;
  const bool special = (x.bits & 0x7c00U) == 0x7c00U;
  const float size = special ? same_bits<float>(moved | 0x7f800000U)  //
                             : same_bits<float>(moved) * 0x1p112F;
  return to_double((x.bits & 0x8000U) != 0 ? -size : size);
}

// Towards zero; finite and within the type's range.
void from_float(float x, double& to) { to = static_cast<double>(x); }
void from_float(float x, float& to) { to = x; }
void from_float(float x, Brain& to) {
  to.bits = static_cast<std::uint16_t>(same_bits<std::uint32_t>(x) >> 16);
}
void from_float(float x, Half& to) {
  const std::uint32_t sign = same_bits<std::uint32_t>(x) >> 16 & 0x8000U;
  const std::uint32_t size = same_bits<std::uint32_t>(std::fabs(x) * 0x1p-112F) >> 13;
  to.bits = static_cast<std::uint16_t>(sign | size);
}

template <class T>
T at(const unsigned char* data, std::size_t element) {
  T value;
  std::memcpy(&value, data + element * sizeof(T), sizeof value);
  return value;
}

// Call what(T{}) with the storage type of floats, or return false.
template <class What>
bool with_float(Element element, const What& what) {
  switch (element) {
    case Element::kFloat64:
      what(double{});
      return true;
    case Element::kFloat32:
      what(float{});
      return true;
    case Element::kFloat16:
      what(Half{});
      return true;
    case Element::kBFloat16:
      what(Brain{});
      return true;
    default:
      return false;
  }
}

struct Squares {
  double sum = 0;
  std::size_t count = 0;
};

template <class T>
Squares squares(const unsigned char* data, Range range) {
  Squares result;
  for (std::size_t i = range.begin / sizeof(T); i < range.end / sizeof(T); ++i) {
    const double value = to_double(at<T>(data, i));
    const bool finite = std::isfinite(value);
    result.sum += finite ? value * value : 0.0;
    result.count += finite ? 1 : 0;
  }
  return result;
}

bool right(double x, double y, double relative, double scale) {
  const bool near =
      std::isfinite(y) && std::fabs(x - y) <= relative * std::max(std::fabs(y), scale);
  return near || x == y || (std::isnan(x) && std::isnan(y));
}

// Count the elements of a range for which equal(i) is false.
template <class Equal>
void count_wrong(Range elements, const Equal& equal, Difference& into) {
  for (std::size_t i = elements.begin; i < elements.end; ++i) {
    if (equal(i)) continue;
    if (into.wrong == 0) into.first = i;
    ++into.wrong;
  }
}

}  // namespace

Element element_of(const std::string& dtype) {
  if (dtype == "float64") return Element::kFloat64;
  if (dtype == "float32") return Element::kFloat32;
  if (dtype == "float16") return Element::kFloat16;
  if (dtype == "bfloat16") return Element::kBFloat16;
  if (dtype == "int64" || dtype == "uint64") return Element::kBytes8;
  if (dtype == "int32" || dtype == "uint32") return Element::kBytes4;
  if (dtype == "int16" || dtype == "uint16") return Element::kBytes2;
  if (dtype == "int8" || dtype == "uint8" || dtype == "bool") return Element::kBytes1;
  throw std::invalid_argument("unknown dtype " + dtype);
}

std::size_t item_bytes(Element element) {
  switch (element) {
    case Element::kFloat64:
    case Element::kBytes8:
      return 8;
    case Element::kFloat32:
    case Element::kBytes4:
      return 4;
    case Element::kFloat16:
    case Element::kBFloat16:
    case Element::kBytes2:
      return 2;
    case Element::kBytes1:
      return 1;
  }
  throw std::invalid_argument("unknown element");
}

void fill_normal(Element element, void* data, std::size_t elements, std::uint64_t seed) {
  const auto fill = [&](auto type) {
    auto* bytes = static_cast<unsigned char*>(data);
    for (std::size_t i = 0; i < elements; ++i) {
      from_float(normal(hash(seed, i)), type);
      std::memcpy(bytes + i * sizeof type, &type, sizeof type);
    }
  };
  if (!with_float(element, fill)) throw std::invalid_argument("only floats are normal");
}

void fill_uniform(Element element, void* data, std::size_t elements, std::int64_t low,
                  std::int64_t high, std::uint64_t seed) {
  if (low >= high) throw std::invalid_argument("there is no integer in an empty range");
  const auto extent = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  const std::size_t size = item_bytes(element);
  auto* bytes = static_cast<unsigned char*>(data);
  for (std::size_t i = 0; i < elements; ++i) {
    // Little endian: the lower bytes of an integer come first.
    const std::uint64_t value = static_cast<std::uint64_t>(low) + hash(seed, i) % extent;
    std::memcpy(bytes + i * size, &value, size);
  }
}

Reference::Reference(Element element, const void* data, std::size_t bytes, double relative)
    : element_(element),
      data_(static_cast<const unsigned char*>(data)),
      bytes_(bytes),
      relative_(relative) {
  if (bytes % timing::item_bytes(element) != 0)
    throw std::invalid_argument("the bytes are no whole elements");
  const std::vector<Range> ranges = shares(bytes);
  std::vector<Squares> parts(ranges.size());
  const auto sum = [&](auto type) {
    in_parallel(ranges.size(),
                [&](std::size_t k) { parts[k] = squares<decltype(type)>(data_, ranges[k]); });
  };
  if (!with_float(element, sum)) return;
  Squares all;
  for (const Squares& part : parts) {
    all.sum += part.sum;
    all.count += part.count;
  }
  if (all.count > 0) scale_ = std::sqrt(all.sum / static_cast<double>(all.count));
}

Difference Reference::compare(const void* got, std::size_t offset, std::size_t bytes) const {
  const std::size_t size = timing::item_bytes(element_);
  if (offset % size != 0 || bytes % size != 0 || offset > bytes_ || bytes > bytes_ - offset)
    throw std::invalid_argument("these bytes are no part of the reference");
  const auto* x = static_cast<const unsigned char*>(got);
  const unsigned char* y = data_ + offset;
  const std::vector<Range> ranges = shares(bytes);
  std::vector<Difference> parts(ranges.size());
  const auto compare_block = [&](Range elements, Difference& into) {
    const auto by_value = [&](auto type) {
      using T = decltype(type);
      const auto equal = [&](std::size_t i) {
        return right(to_double(at<T>(x, i)), to_double(at<T>(y, i)), relative_, scale_);
      };
      count_wrong(elements, equal, into);
    };
    const auto by_bytes = [&](std::size_t i) {
      return std::memcmp(x + i * size, y + i * size, size) == 0;
    };
    if (!with_float(element_, by_value)) count_wrong(elements, by_bytes, into);
  };
  in_parallel(ranges.size(), [&](std::size_t k) {
    for (std::size_t begin = ranges[k].begin; begin < ranges[k].end; begin += kBlock) {
      const std::size_t end = std::min(begin + kBlock, ranges[k].end);
      if (std::memcmp(x + begin, y + begin, end - begin) != 0)
        compare_block({begin / size, end / size}, parts[k]);
    }
  });
  Difference all;
  for (const Difference& part : parts) {
    if (all.wrong == 0 && part.wrong > 0) all.first = offset / size + part.first;
    all.wrong += part.wrong;
  }
  return all;
}

}  // namespace mkwrap::timing
