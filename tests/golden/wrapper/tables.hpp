// The library tables: its arguments by name. Written by mkwrap; see mkwrap/mkwrap.hpp.
// clang-format off
#ifndef MKWRAP_MODEL_TABLES_HPP_
#define MKWRAP_MODEL_TABLES_HPP_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "mkwrap/mkwrap.hpp"
#include "mkwrap/sizes.h"

namespace tables {

// The dynamic sizes.
struct Sizes {
  std::int64_t rows = 0;  // 0 to 1099511627776
  std::int64_t cols = 0;  // 0 to no bound
};

// What a run reads; mutable memory is written to as well.
struct Inputs {
  const float* x = nullptr;  // float32 (2*rows + 1)×cols
  const float* b = nullptr;  // float32 cols
};

// The caller's memory for what a run writes.
struct Outputs {
  float* y = nullptr;  // float32 2
  float* z = nullptr;  // float32 cols
};

// Shapes, and strides in elements, for given sizes. Throw mkwrap::Error (MKW_ERROR_SIZE) for what does
// not fit 64 bits.
struct Shapes {
  static std::vector<std::int64_t> x([[maybe_unused]] const Sizes& sizes) {
    bool wide = false;
    std::vector<std::int64_t> result = {mkwrap::runtime::plus(mkwrap::runtime::times(2, sizes.rows, wide), 1, wide), sizes.cols};
    if (wide) throw mkwrap::Error(MKW_ERROR_SIZE, -1, "a size of x does not fit 64 bits");
    return result;
  }
  static std::vector<std::int64_t> x_strides([[maybe_unused]] const Sizes& sizes) {
    return {sizes.cols, 1};
  }
  static std::vector<std::int64_t> b([[maybe_unused]] const Sizes& sizes) {
    return {sizes.cols};
  }
  static std::vector<std::int64_t> b_strides([[maybe_unused]] const Sizes& sizes) {
    return {1};
  }
  static std::vector<std::int64_t> y([[maybe_unused]] const Sizes& sizes) {
    return {2};
  }
  static std::vector<std::int64_t> y_strides([[maybe_unused]] const Sizes& sizes) {
    return {1};
  }
  static std::vector<std::int64_t> z([[maybe_unused]] const Sizes& sizes) {
    return {sizes.cols};
  }
  static std::vector<std::int64_t> z_strides([[maybe_unused]] const Sizes& sizes) {
    return {1};
  }
};

// The model on one device, with the scratch memory of one call in flight: not for two threads at
// once. For another thread: a copy, which shares the model and has scratch memory of its own.
class Model {
 public:
  // Open a library file. Throws mkwrap::Error: MKW_ERROR_FILE, MKW_ERROR_VERSION (another
  // signature), and what mkwrap::Model throws.
  explicit Model(const std::string& path, std::int32_t device = 0)
      : Model(mkwrap::Library::open(path), device) {}
  // Use a library this program is linked with: mkwrap::Library::from(mkw_get_api).
  explicit Model(const mkwrap::Library& library, std::int32_t device = 0)
      : device_(device), model_(checked(library), device), context_(model_) {}
  Model(const Model& other) : device_(other.device_), model_(other.model_), context_(model_) {}
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const mkwrap::Model& model() const { return model_; }

  // Run once, on row-major memory or that of the strides in Shapes. Throws what
  // mkwrap::Context::run does.
  void run(const Sizes& sizes, const Inputs& inputs, const Outputs& outputs,
           void* stream = nullptr) {
    context_.run(tensors(sizes, inputs), tensors(sizes, outputs), stream);
  }
  // Bytes of scratch memory that such a run needs.
  [[nodiscard]] std::int64_t scratch_bytes(const Sizes& sizes, const Inputs& inputs) const {
    return model_.scratch_bytes(tensors(sizes, inputs));
  }
  void synchronize() { context_.synchronize(); }

 private:
  [[nodiscard]] mkwrap::Tensor at(const void* data, mkw_dtype dtype,
                                  const std::vector<std::int64_t>& shape,
                                  const std::vector<std::int64_t>& strides) const {
    return {data, dtype, shape, strides, {model_.library().api().device_type, device_}};
  }
  [[nodiscard]] std::vector<mkwrap::Tensor> tensors([[maybe_unused]] const Sizes& sizes, [[maybe_unused]] const Inputs& given) const {
    return {
      at(given.x, {MKW_FLOAT, 32, 1}, Shapes::x(sizes), Shapes::x_strides(sizes)),
      at(given.b, {MKW_FLOAT, 32, 1}, Shapes::b(sizes), Shapes::b_strides(sizes)),
    };
  }
  [[nodiscard]] std::vector<mkwrap::Tensor> tensors([[maybe_unused]] const Sizes& sizes, [[maybe_unused]] const Outputs& given) const {
    return {
      at(given.y, {MKW_FLOAT, 32, 1}, Shapes::y(sizes), Shapes::y_strides(sizes)),
      at(given.z, {MKW_FLOAT, 32, 1}, Shapes::z(sizes), Shapes::z_strides(sizes)),
    };
  }
  // The library, if it has this header's signature.
  static const mkwrap::Library& checked(const mkwrap::Library& library) {
    const mkw_api& api = library.api();
    bool same = api.input_count == 2 && api.output_count == 2 && api.symbol_count == 2;
    same = same && std::strcmp(api.symbols[0].name, "rows") == 0;
    same = same && std::strcmp(api.symbols[1].name, "cols") == 0;
    same = same && is(api.inputs[0], "x", {MKW_FLOAT, 32, 1}, 2);
    same = same && is(api.inputs[1], "b", {MKW_FLOAT, 32, 1}, 1);
    same = same && is(api.outputs[0], "y", {MKW_FLOAT, 32, 1}, 1);
    same = same && is(api.outputs[1], "z", {MKW_FLOAT, 32, 1}, 1);
    if (!same) {
      throw mkwrap::Error(MKW_ERROR_VERSION, -1,
                          "the library has another signature than this header; write it anew");
    }
    return library;
  }
  [[maybe_unused]] static bool is(const mkw_tensor_info& info, const char* name, mkw_dtype dtype, int rank) {
    return std::strcmp(info.name, name) == 0 && info.dtype.code == dtype.code &&
           info.dtype.bits == dtype.bits && info.ndim == rank;
  }

  std::int32_t device_;
  mkwrap::Model model_;
  mkwrap::Context context_;
};

}  // namespace tables

#endif  // MKWRAP_MODEL_TABLES_HPP_
