// Contiguous host memory behind a Python object that has the buffer protocol.
#ifndef MKWRAP_BINDING_HOST_MEMORY_H_
#define MKWRAP_BINDING_HOST_MEMORY_H_

#include <pybind11/pybind11.h>

#include <cstddef>

namespace mkwrap::binding {

// Holds the object's buffer while it lives; create and destroy it with the interpreter's lock.
class HostMemory {
 public:
  enum class Access { kRead, kWrite };

  HostMemory(const pybind11::object& object, Access access) {
    const int flags =
        access == Access::kWrite ? PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE : PyBUF_C_CONTIGUOUS;
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw pybind11::error_already_set();
  }
  ~HostMemory() { PyBuffer_Release(&view_); }
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  [[nodiscard]] void* data() const { return view_.buf; }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_{};
};

}  // namespace mkwrap::binding

#endif  // MKWRAP_BINDING_HOST_MEMORY_H_
