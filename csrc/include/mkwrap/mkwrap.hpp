// Compiled models from C++17: RAII over the C ABI. Errors are exceptions here, and only here.
//
//   auto library = mkwrap::Library::open("model.so");  // a linked one: Library::from(mkw_get_api)
//   mkwrap::Model model(library, /*device=*/0);
//   mkwrap::Context context(model);
//   context.run({mkwrap::Tensor(x, {8})}, {mkwrap::Tensor(y, {8})});
#ifndef MKWRAP_MKWRAP_HPP_
#define MKWRAP_MKWRAP_HPP_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "mkwrap/abi.h"

namespace mkwrap {

// A failed call: its status, and for MKW_ERROR_INPUT which argument.
class Error : public std::runtime_error {
 public:
  Error(mkw_status status, std::int32_t argument, const std::string& message)
      : std::runtime_error(message), status_(status), argument_(argument) {}
  explicit Error(const mkw_error& error) : Error(error.status, error.argument, error.message) {}

  [[nodiscard]] mkw_status status() const { return status_; }
  [[nodiscard]] std::int32_t argument() const { return argument_; }

 private:
  mkw_status status_;
  std::int32_t argument_;
};

// The dtype of a C++ element type.
template <class T>
constexpr mkw_dtype dtype_of() {
  using Element = std::remove_cv_t<T>;
  static_assert(std::is_arithmetic_v<Element>, "give the dtype of this element type explicitly");
  constexpr std::uint8_t kBits = sizeof(Element) * 8;
  if constexpr (std::is_same_v<Element, bool>) return {MKW_BOOL, kBits, 1};
  if constexpr (std::is_floating_point_v<Element>) return {MKW_FLOAT, kBits, 1};
  if constexpr (std::is_signed_v<Element>) return {MKW_INT, kBits, 1};
  return {MKW_UINT, kBits, 1};
}

// A view of memory the caller owns. Row-major unless strides (in elements) are given.
class Tensor {
 public:
  static constexpr std::size_t kMaxRank = 16;

  Tensor(const void* data, mkw_dtype dtype, const std::vector<std::int64_t>& shape,
         const std::vector<std::int64_t>& strides = {}, mkw_device device = {MKW_DEVICE_CPU, 0})
      : rank_(shape.size()), has_strides_(!strides.empty()) {
    if (rank_ > kMaxRank || (has_strides_ && strides.size() != rank_))
      throw std::invalid_argument("mkwrap::Tensor: bad rank of shape or strides");
    for (std::size_t d = 0; d < rank_; ++d) shape_[d] = shape[d];
    for (std::size_t d = 0; d < strides.size(); ++d) strides_[d] = strides[d];
    tensor_ = {const_cast<void*>(data),
               device,
               static_cast<std::int32_t>(rank_),
               dtype,
               nullptr,
               nullptr,
               0};
  }

  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
  Tensor(T* data, const std::vector<std::int64_t>& shape,
         const std::vector<std::int64_t>& strides = {}, mkw_device device = {MKW_DEVICE_CPU, 0})
      : Tensor(data, dtype_of<T>(), shape, strides, device) {}

  // The C view; valid while this object lives and is not moved.
  [[nodiscard]] mkw_tensor view() const {
    mkw_tensor tensor = tensor_;
    tensor.shape = const_cast<std::int64_t*>(shape_.data());
    tensor.strides = has_strides_ ? const_cast<std::int64_t*>(strides_.data()) : nullptr;
    return tensor;
  }

 private:
  std::size_t rank_;
  bool has_strides_;
  std::array<std::int64_t, kMaxRank> shape_{};
  std::array<std::int64_t, kMaxRank> strides_{};
  mkw_tensor tensor_{};
};

// A dynamic size: its name and its inclusive range.
struct Symbol {
  std::string name;
  std::int64_t low;
  std::int64_t high;
};

// A library's table, and the open file behind it. Copies share the file; it is closed with the last
// of them.
class Library {
 public:
  // Open a library file, after its seal was verified. Throws Error (MKW_ERROR_FILE) if it is no
  // library, is damaged, cannot be loaded or speaks another ABI version.
  static Library open(const std::string& path);
  // Use a library this program is linked with: Library::from(mkw_get_api). Throws Error
  // (MKW_ERROR_VERSION).
  static Library from(mkw_get_api_function get);

  [[nodiscard]] const mkw_api& api() const { return *api_; }
  // The dynamic sizes, in the order of mkw_api.symbols.
  [[nodiscard]] std::vector<Symbol> symbols() const;
  // Their values for these inputs, in the same order. Throws Error: MKW_ERROR_INPUT.
  [[nodiscard]] std::vector<std::int64_t> sizes(const std::vector<Tensor>& inputs) const;
  // The shapes of the outputs for these inputs. Throws Error: MKW_ERROR_INPUT.
  [[nodiscard]] std::vector<std::vector<std::int64_t>> output_shapes(
      const std::vector<Tensor>& inputs) const;
  [[nodiscard]] std::string_view manifest() const {
    return {api_->manifest, static_cast<std::size_t>(api_->manifest_bytes)};
  }

 private:
  Library(std::shared_ptr<void> file, const mkw_api* api) : file_(std::move(file)), api_(api) {}

  std::shared_ptr<void> file_;
  const mkw_api* api_;
};

// A model on one device: weights and kernels. Copies share it.
class Model {
 public:
  // Throws Error: MKW_ERROR_ISA, MKW_ERROR_NO_DRIVER, MKW_ERROR_ARCHITECTURE, MKW_ERROR_DRIVER,
  // MKW_ERROR_ARGUMENT.
  explicit Model(const Library& library, std::int32_t device = 0);

  [[nodiscard]] const Library& library() const { return library_; }
  [[nodiscard]] mkw_model* get() const { return model_.get(); }
  // Bytes of scratch memory that a context needs at most; MKW_DYNAMIC where sizes have no bounds.
  [[nodiscard]] std::int64_t workspace_bytes() const;
  // Bytes of scratch memory that a run on these inputs needs. Throws Error: MKW_ERROR_INPUT,
  // MKW_ERROR_SIZE.
  [[nodiscard]] std::int64_t scratch_bytes(const std::vector<Tensor>& inputs) const;

 private:
  Library library_;
  std::shared_ptr<mkw_model> model_;
};

// The constants of another library of the same program, for contexts to run with. Copies share
// them.
class Weights {
 public:
  // Throws Error: MKW_ERROR_WEIGHTS, MKW_ERROR_MEMORY, MKW_ERROR_DRIVER.
  Weights(const Model& model, const Library& source);

  [[nodiscard]] const Model& model() const { return model_; }
  [[nodiscard]] mkw_weights* get() const { return weights_.get(); }

 private:
  friend class Context;

  Model model_;
  Library source_;
  std::shared_ptr<mkw_weights> weights_;
};

// The scratch memory of one call in flight. Not for use by two threads at once.
class Context {
 public:
  // Throws Error: MKW_ERROR_MEMORY, MKW_ERROR_DRIVER.
  explicit Context(const Model& model);
  // With weights in the place of the library's own.
  explicit Context(const Weights& weights);

  // Run once; see mkw_api.run. Throws Error: MKW_ERROR_INPUT, MKW_ERROR_INDEX_RANGE,
  // MKW_ERROR_DRIVER; with dynamic sizes MKW_ERROR_SIZE, MKW_ERROR_MEMORY, MKW_ERROR_CAPTURE.
  void run(const mkw_tensor* inputs, const mkw_tensor* outputs, void* stream = nullptr);
  // As above, with the numbers of tensors checked.
  void run(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
           void* stream = nullptr);
  // Let the scratch memory grow to what runs on these inputs need, with nullptr to what any run
  // needs; see mkw_api.context_reserve. Throws Error: MKW_ERROR_MEMORY, MKW_ERROR_SIZE,
  // MKW_ERROR_CAPTURE, MKW_ERROR_INPUT.
  void reserve(const mkw_tensor* inputs, void* stream = nullptr);
  // Wait for the device, then throw what runs on this context met meanwhile; see
  // mkw_api.synchronize. Throws Error: MKW_ERROR_INDEX_RANGE, MKW_ERROR_DRIVER.
  void synchronize();

 private:
  struct Destroy {
    Library library;
    Library weights;  // the library that the weights are from
    void operator()(mkw_context* context) const { library.api().context_destroy(context); }
  };

  [[nodiscard]] const mkw_api& api() const { return context_.get_deleter().library.api(); }

  std::unique_ptr<mkw_context, Destroy> context_;
};

}  // namespace mkwrap

#endif  // MKWRAP_MKWRAP_HPP_
