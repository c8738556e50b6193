// The dynamic sizes of a run: read from its inputs, checked, and kept with all that follows from
// them, so that the same sizes again cost a comparison.
#ifndef MKWRAP_SHAPE_H_
#define MKWRAP_SHAPE_H_

#include <inttypes.h>

#include "mkwrap/check.h"

namespace mkwrap::runtime {

// What a library keeps of the sizes it ran with last.
struct ShapeCounts {
  int32_t values;      // symbols and size expressions; 0: the library has no dynamic sizes
  int32_t elected;     // kernels that choose among binaries by size
  int64_t most_arena;  // bytes that no sizes in range need more than; MKW_DYNAMIC: no such bound
};

// The scratch memory that no run needs more than, of an arena and a choice's workspace;
// MKW_DYNAMIC: sizes have no upper bounds.
constexpr int64_t most_scratch(int64_t arena, int64_t workspace) {
  int64_t most = 0;
  if (arena < 0 || workspace < 0 || __builtin_add_overflow(arena, workspace, &most))
    return MKW_DYNAMIC;
  return most;
}

// Sizes and what follows from them.
struct Shape {
  int64_t* values;    // of the symbols, then of the model's size expressions
  uint32_t* elected;  // the alternative of each kernel that chooses among binaries by size
  bool known;         // whether all of it is what `values` says of the symbols
  uint64_t arena_bytes;
  uint64_t scratch_bytes;  // arena and workspace
};

// The symbols of a program, and the inputs they are read from.
struct Symbols {
  const mkw_symbol_info* infos;
  int32_t count;
  const mkw_tensor_info* inputs;
};

// Append "batch = 3 (args[0] dimension 0), …".
inline void add_values(Text& text, const Symbols& symbols, const int64_t* values) {
  for (int32_t i = 0; i < symbols.count; ++i) {
    const mkw_symbol_info& symbol = symbols.infos[i];
    text.add("%s%s = %" PRId64 " (%s dimension %d)", i == 0 ? "" : ", ", symbol.name, values[i],
             symbols.inputs[symbol.input].path, symbol.dim);
  }
}

// Append the length of the dimension that binds a symbol, as an expression: "batch", "2*batch + 1".
inline void add_extent(Text& text, const mkw_symbol_info& symbol) {
  if (symbol.scale != 1) text.add("%" PRId64 "*", symbol.scale);
  text.add("%s", symbol.name);
  if (symbol.offset != 0)
    text.add(" %c %" PRId64, symbol.offset < 0 ? '-' : '+',
             symbol.offset < 0 ? -symbol.offset : symbol.offset);
}

// The dimension that binds a symbol has a length that no value in range gives.
[[gnu::cold, gnu::noinline]] inline mkw_status unbound(const Symbols& symbols, int32_t number,
                                                       int64_t got, mkw_error* error) {
  const mkw_symbol_info& symbol = symbols.infos[number];
  char extent[128];
  Text text(extent, sizeof(extent));
  add_extent(text, symbol);
  char most[32];
  Text bound(most, sizeof(most));
  if (symbol.high == INT64_MAX)
    bound.add("any size");
  else
    bound.add("%" PRId64, symbol.high);
  return fail(
      error, MKW_ERROR_INPUT, symbol.input,
      "%s: wrong shape: expected dimension %d to be %s with %s in %" PRId64 "..%s, got %" PRId64,
      symbols.inputs[symbol.input].path, symbol.dim, extent, symbol.name, symbol.low, most, got);
}

// Whether the inputs have the sizes that a shape is known for.
inline bool same_sizes(const Symbols& symbols, const mkw_tensor* inputs, const Shape& shape) {
  if (!shape.known) return false;
  bool same = true;
  for (int32_t i = 0; i < symbols.count; ++i) {
    const mkw_symbol_info& symbol = symbols.infos[i];
    same &=
        inputs[symbol.input].shape[symbol.dim] == symbol.scale * shape.values[i] + symbol.offset;
  }
  return same;
}

// Read the symbols' values from inputs whose ranks are right, and hold them against their ranges.
inline mkw_status bind_sizes(const Symbols& symbols, const mkw_tensor* inputs, int64_t* values,
                             mkw_error* error) {
  for (int32_t i = 0; i < symbols.count; ++i) {
    const mkw_symbol_info& symbol = symbols.infos[i];
    const int64_t extent = inputs[symbol.input].shape[symbol.dim];
    int64_t scaled = 0;
    if (__builtin_sub_overflow(extent, symbol.offset, &scaled) || scaled % symbol.scale != 0)
      return unbound(symbols, i, extent, error);
    values[i] = scaled / symbol.scale;
    if (values[i] < symbol.low || values[i] > symbol.high)
      return unbound(symbols, i, extent, error);
  }
  return MKW_OK;
}

// The sizes do not fulfil what the program asks of them; `relation` as the user would write it.
[[gnu::cold, gnu::noinline]] inline mkw_status unfulfilled(const Symbols& symbols,
                                                           const int64_t* values, int32_t argument,
                                                           const char* relation, const char* origin,
                                                           mkw_error* error) {
  char sizes[512];
  Text text(sizes, sizeof(sizes));
  add_values(text, symbols, values);
  return fail(error, MKW_ERROR_INPUT, argument, "wrong shapes: expected %s%s%s, got %s", relation,
              origin[0] != '\0' ? ", which is asked for at " : "", origin, sizes);
}

// A dynamic size or stride differs from what the symbols make it.
[[gnu::cold, gnu::noinline]] inline mkw_status wrong_extent(
    const Symbols& symbols, const int64_t* values, const mkw_tensor_info& info, int32_t argument,
    const char* what, int32_t dim, const char* expression, int64_t expected, int64_t got,
    mkw_error* error) {
  char sizes[384];
  Text text(sizes, sizeof(sizes));
  add_values(text, symbols, values);
  return fail(error, MKW_ERROR_INPUT, argument,
              "%s: wrong %s: expected %" PRId64 " in dimension %d, which is %s, got %" PRId64
              "; %s",
              info.path, what, expected, dim, expression, got, sizes);
}

// What follows from the sizes does not fit 64 bits, or is more than a device takes.
[[gnu::cold, gnu::noinline]] inline mkw_status too_large(const Symbols& symbols,
                                                         const int64_t* values, const char* what,
                                                         mkw_error* error) {
  char sizes[512];
  Text text(sizes, sizeof(sizes));
  add_values(text, symbols, values);
  return fail(error, MKW_ERROR_SIZE, -1, "the sizes are too large: %s; %s", what, sizes);
}

// No binary of a kernel is right for the sizes; the compiler sees to it that this cannot be.
[[gnu::cold, gnu::noinline]] inline mkw_status no_binary(const Symbols& symbols,
                                                         const int64_t* values, const char* kernel,
                                                         mkw_error* error) {
  char sizes[512];
  Text text(sizes, sizeof(sizes));
  add_values(text, symbols, values);
  return fail(error, MKW_ERROR_SIZE, -1, "no binary of %s is right for these sizes: %s", kernel,
              sizes);
}

// Allocate what a context keeps of sizes; false where memory ran out. Freed with free_shape.
inline bool allocate_shape(const ShapeCounts& counts, Shape& shape) {
  if (counts.values == 0) return true;
  shape.values = static_cast<int64_t*>(calloc(static_cast<size_t>(counts.values), sizeof(int64_t)));
  shape.elected =
      static_cast<uint32_t*>(calloc(static_cast<size_t>(counts.elected) + 1, sizeof(uint32_t)));
  return shape.values != nullptr && shape.elected != nullptr;
}

inline void free_shape(Shape& shape) {
  free(shape.values);
  free(shape.elected);
}

// The bytes of scratch to allocate where `needed` are: growing by half at least keeps allocations
// few.
inline uint64_t grown(uint64_t held, uint64_t needed) {
  const uint64_t half_more = held + held / 2;
  return half_more > needed ? half_more : needed;
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_SHAPE_H_
