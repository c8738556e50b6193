// The values kernels are measured on and how two results compare: one pass over memory, no Python.
#ifndef MKWRAP_TIMING_VALUES_H_
#define MKWRAP_TIMING_VALUES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mkwrap::timing {

// How elements lie in memory. Integers are compared by their bytes, so only their size counts.
enum class Element { kFloat64, kFloat32, kFloat16, kBFloat16, kBytes8, kBytes4, kBytes2, kBytes1 };

// From torch's name of a dtype. Throws std::invalid_argument for an unknown one.
Element element_of(const std::string& dtype);

std::size_t item_bytes(Element element);

// Floats of nearly the normal distribution N(0, 1): the sum of four uniform numbers, within ±3.46.
// Equal seeds give equal values; the first n of more values are the values of n.
void fill_normal(Element element, void* data, std::size_t elements, std::uint64_t seed);

// Integers in low … high − 1 of an item size; low < high.
void fill_uniform(Element element, void* data, std::size_t elements, std::int64_t low,
                  std::int64_t high, std::uint64_t seed);

// Elements of a result that are not right.
struct Difference {
  std::size_t wrong = 0;
  std::size_t first = 0;  // index of the first, if there is one
};

// A right result and how near others must come. The bytes stay the caller's.
class Reference {
 public:
  // `relative`: allowed difference of finite floats, relative to the larger of the element and the
  // root mean square of the finite elements. Throws std::invalid_argument if bytes is no multiple
  // of the item size.
  Reference(Element element, const void* data, std::size_t bytes, double relative);

  // Compare `bytes` of a result that begin at byte `offset`, a multiple of the item size. NaN
  // equals NaN, whatever its bits. Uses several threads where there is much to do.
  [[nodiscard]] Difference compare(const void* got, std::size_t offset, std::size_t bytes) const;

  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] std::size_t item_bytes() const { return timing::item_bytes(element_); }

 private:
  Element element_;
  const unsigned char* data_;
  std::size_t bytes_;
  double relative_;
  double scale_ = 0;
};

}  // namespace mkwrap::timing

#endif  // MKWRAP_TIMING_VALUES_H_
