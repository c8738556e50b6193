// The Python type `_C.Model`, written against CPython's C API: a call enters by vectorcall, with no
// frame and no tuple.
#include <pybind11/pybind11.h>
#include <structmember.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "binding/model.h"
#include "binding/module.h"
#include "mkwrap/dlpack.h"

namespace py = pybind11;

namespace mkwrap::binding {
namespace {

struct ModelObject {
  PyObject_HEAD vectorcallfunc vectorcall;
  ModelState* state;
};

ModelObject* model(PyObject* self) { return reinterpret_cast<ModelObject*>(self); }

ModelState* state_of(PyObject* self) {
  ModelState* state = model(self)->state;
  if (state == nullptr) PyErr_SetString(PyExc_ValueError, "the model has not been initialised");
  return state;
}

// Call self.nested(args, kwargs), which knows the structure of the arguments and of the result.
PyObject* call_nested(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  const Object positional(PyTuple_New(count));
  const Object keywords(PyDict_New());
  if (!positional || !keywords) return nullptr;
  for (Py_ssize_t k = 0; k < count; ++k) {
    Py_INCREF(args[k]);
    PyTuple_SET_ITEM(positional.get(), k, args[k]);
  }
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
  for (Py_ssize_t k = 0; k < named; ++k) {
    if (PyDict_SetItem(keywords.get(), PyTuple_GET_ITEM(names, k), args[count + k]) != 0)
      return nullptr;
  }
  return PyObject_CallMethod(self, "nested", "OO", positional.get(), keywords.get());
}

PyObject* vectorcall(PyObject* self, PyObject* const* args, std::size_t flags, PyObject* names) {
  ModelState* state = state_of(self);
  if (state == nullptr) return nullptr;
  const Py_ssize_t count = PyVectorcall_NARGS(flags);
  const bool named = names != nullptr && PyTuple_GET_SIZE(names) != 0;
  if (named || state->flat == Flat::kNone || count != state->library->api().input_count) {
    return call_nested(self, args, count, names);
  }
  return run(*state, args, state->flat);
}

PyObject* make(PyTypeObject* type, PyObject* /*args*/, PyObject* /*kwargs*/) {
  PyObject* self = type->tp_alloc(type, 0);
  if (self != nullptr) model(self)->vectorcall = &vectorcall;
  return self;
}

constexpr std::pair<const char*, Flat> kFlats[] = {{"none", Flat::kNone},
                                                   {"single", Flat::kSingle},
                                                   {"tuple", Flat::kTuple},
                                                   {"list", Flat::kList}};

int initialise(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* kNames[] = {"file", "path", "exchange", nullptr};
  int file = -1;
  const char* path = nullptr;
  int exchange = 1;
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "is|p", const_cast<char**>(kNames), &file, &path,
                                  &exchange) == 0) {
    return -1;
  }
  if (model(self)->state != nullptr) {
    PyErr_SetString(PyExc_ValueError, "the model has been initialised already");
    return -1;
  }
  model(self)->state = open_state(file, path, exchange != 0).release();
  return model(self)->state == nullptr ? -1 : 0;
}

void destroy(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete model(self)->state;
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* method_create(PyObject* self, PyObject* device) {
  ModelState* state = state_of(self);
  const long ordinal = PyLong_AsLong(device);
  if (state == nullptr || (ordinal == -1 && PyErr_Occurred() != nullptr)) return nullptr;
  if (!create_model(*state, static_cast<int>(ordinal))) return nullptr;
  Py_RETURN_NONE;
}

// Whether `object` is a tuple of `count` items; false with a Python exception set.
bool check_tuple(PyObject* object, std::int32_t count, const char* what) {
  if (PyTuple_Check(object) != 0 && PyTuple_GET_SIZE(object) == count) return true;
  PyErr_Format(PyExc_ValueError, "expected a tuple of %d %s", static_cast<int>(count), what);
  return false;
}

PyObject* const* items(PyObject* tuple) { return reinterpret_cast<PyTupleObject*>(tuple)->ob_item; }

PyObject* method_run(PyObject* self, PyObject* inputs) {
  ModelState* state = state_of(self);
  if (state == nullptr || !check_tuple(inputs, state->library->api().input_count, "inputs"))
    return nullptr;
  return run(*state, items(inputs), Flat::kTuple);
}

PyObject* method_run_into(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  ModelState* state = state_of(self);
  if (state == nullptr) return nullptr;
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "run_into takes a tuple of inputs and a tuple of outputs");
    return nullptr;
  }
  const mkw_api& api = state->library->api();
  if (!check_tuple(args[0], api.input_count, "inputs") ||
      !check_tuple(args[1], api.output_count, "outputs") ||
      !run_into(*state, items(args[0]), items(args[1]))) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

// Ask what a run on a tuple of inputs would need and choose; null with a Python exception set.
template <typename Function>
PyObject* asked(PyObject* self, PyObject* inputs, const Function& answer) {
  ModelState* state = state_of(self);
  RunFacts facts;
  if (state == nullptr || !check_tuple(inputs, state->library->api().input_count, "inputs") ||
      !ask(*state, items(inputs), facts))
    return nullptr;
  return answer(facts);
}

PyObject* method_scratch_bytes(PyObject* self, PyObject* inputs) {
  return asked(self, inputs,
               [](const RunFacts& facts) { return PyLong_FromLongLong(facts.scratch_bytes); });
}

PyObject* method_elected(PyObject* self, PyObject* inputs) {
  return asked(self, inputs, [](const RunFacts& facts) -> PyObject* {
    const auto count = static_cast<Py_ssize_t>(facts.elected.size());
    Object numbers(PyTuple_New(count));
    for (Py_ssize_t k = 0; numbers && k < count; ++k) {
      PyObject* number = PyLong_FromUnsignedLong(facts.elected[static_cast<std::size_t>(k)]);
      if (number == nullptr) return nullptr;
      PyTuple_SET_ITEM(numbers.get(), k, number);
    }
    return numbers.release();
  });
}

PyObject* method_use_weights(PyObject* self, PyObject* source) {
  // The method was found in the type that defines it, or in one derived from that.
  PyTypeObject* type = Py_TYPE(self);
  while (type->tp_dealloc != &destroy) type = type->tp_base;
  ModelState* state = state_of(self);
  if (state == nullptr) return nullptr;
  if (PyObject_TypeCheck(source, type) == 0) {
    PyErr_Format(PyExc_TypeError, "expected a model, got a %s", Py_TYPE(source)->tp_name);
    return nullptr;
  }
  const ModelState* other = state_of(source);
  if (other == nullptr || !use_weights(*state, *other)) return nullptr;
  Py_RETURN_NONE;
}

PyObject* method_synchronize(PyObject* self, PyObject* /*none*/) {
  ModelState* state = state_of(self);
  if (state == nullptr || !synchronize(*state)) return nullptr;
  Py_RETURN_NONE;
}

// Evaluate a C++ expression of pybind11 objects; its exceptions become Python's.
template <typename Function>
PyObject* guarded(PyObject* self, const Function& function) {
  const ModelState* state = state_of(self);
  if (state == nullptr) return nullptr;
  try {
    return py::object(function(*state)).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  }
}

py::tuple sizes(const std::int64_t* values, std::int32_t count) {
  py::tuple result(static_cast<std::size_t>(count));
  for (std::int32_t k = 0; k < count; ++k) result[static_cast<std::size_t>(k)] = values[k];
  return result;
}

py::tuple tensor_infos(const mkw_tensor_info* infos, std::int32_t count) {
  const py::object make_info = py::module_::import("mkwrap._C").attr("TensorInfo");
  py::tuple result(static_cast<std::size_t>(count));
  for (std::int32_t k = 0; k < count; ++k) {
    const mkw_tensor_info& info = infos[k];
    const char* dtype = dtype_name({info.dtype.code, info.dtype.bits, info.dtype.lanes});
    result[static_cast<std::size_t>(k)] =
        make_info(info.name, info.path, dtype == nullptr ? "" : dtype, sizes(info.shape, info.ndim),
                  sizes(info.strides, info.ndim), info.alignment, info.mutated != 0);
  }
  return result;
}

PyObject* get_manifest(PyObject* self, void* /*closure*/) {
  return guarded(self, [](const ModelState& state) {
    const mkw_api& api = state.library->api();
    return py::str(api.manifest, api.manifest_bytes);
  });
}

PyObject* get_inputs(PyObject* self, void* /*closure*/) {
  return guarded(self, [](const ModelState& state) {
    const mkw_api& api = state.library->api();
    return tensor_infos(api.inputs, api.input_count);
  });
}

PyObject* get_outputs(PyObject* self, void* /*closure*/) {
  return guarded(self, [](const ModelState& state) {
    const mkw_api& api = state.library->api();
    return tensor_infos(api.outputs, api.output_count);
  });
}

PyObject* get_workspace(PyObject* self, void* /*closure*/) {
  return guarded(self, [](const ModelState& state) {
    return py::int_(state.loaded ? state.loaded->workspace_bytes() : 0);
  });
}

PyObject* get_constant_bytes(PyObject* self, void* /*closure*/) {
  return guarded(
      self, [](const ModelState& state) { return py::int_(state.library->api().constant_bytes); });
}

PyObject* get_device_type(PyObject* self, void* /*closure*/) {
  return guarded(self, [](const ModelState& state) {
    return py::str(state.library->api().device_type == MKW_DEVICE_CUDA ? "cuda" : "cpu");
  });
}

PyObject* get_contexts(PyObject* self, void* /*closure*/) {
  return guarded(self, [](const ModelState& state) {
    return py::int_(state.loaded ? state.loaded->contexts() : 0);
  });
}

PyObject* get_file(PyObject* self, void* /*closure*/) {
  return guarded(self, [](const ModelState& state) { return py::int_(state.library->file()); });
}

PyObject* get_flat(PyObject* self, void* /*closure*/) {
  return guarded(self, [](const ModelState& state) {
    const char* found = "";
    for (const auto& [name, value] : kFlats) {
      if (value == state.flat) found = name;
    }
    return py::str(found);
  });
}

int set_flat(PyObject* self, PyObject* value, void* /*closure*/) {
  ModelState* state = state_of(self);
  const char* text = value == nullptr ? nullptr : PyUnicode_AsUTF8(value);
  if (state == nullptr || text == nullptr) return -1;
  for (const auto& [name, flat] : kFlats) {
    if (std::strcmp(text, name) != 0) continue;
    if (flat == Flat::kSingle && state->library->api().output_count != 1) break;
    state->flat = flat;
    return 0;
  }
  PyErr_Format(PyExc_ValueError, "flat cannot be '%s' here", text);
  return -1;
}

PyObject* get_exchange(PyObject* self, void* /*closure*/) {
  return guarded(
      self, [](const ModelState& state) { return py::bool_(state.torch.exchange() != nullptr); });
}

PyMethodDef kMethods[] = {
    {"create", &method_create, METH_O, "Create the model on a device ordinal."},
    {"run", &method_run, METH_O, "Run on a tuple of inputs; returns a tuple of new tensors."},
    {"run_into", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&method_run_into)),
     METH_FASTCALL, "Run on a tuple of inputs, into a tuple of outputs."},
    {"scratch_bytes", &method_scratch_bytes, METH_O,
     "Say how many bytes of scratch a run on a tuple of inputs needs."},
    {"elected", &method_elected, METH_O,
     "Say which alternative of each kernel a run on a tuple of inputs uses."},
    {"use_weights", &method_use_weights, METH_O,
     "Let the calls to come use another model's constants."},
    {"synchronize", &method_synchronize, METH_NOARGS,
     "Wait for the device, then raise what earlier calls met."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef kProperties[] = {{"manifest_text", &get_manifest, nullptr, nullptr, nullptr},
                             {"inputs", &get_inputs, nullptr, nullptr, nullptr},
                             {"outputs", &get_outputs, nullptr, nullptr, nullptr},
                             {"workspace_bytes", &get_workspace, nullptr, nullptr, nullptr},
                             {"constant_bytes", &get_constant_bytes, nullptr, nullptr, nullptr},
                             {"device_type", &get_device_type, nullptr, nullptr, nullptr},
                             {"contexts", &get_contexts, nullptr, nullptr, nullptr},
                             {"file", &get_file, nullptr, nullptr, nullptr},
                             {"flat", &get_flat, &set_flat, nullptr, nullptr},
                             {"exchange", &get_exchange, nullptr, nullptr, nullptr},
                             {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef kMembers[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(ModelObject, vectorcall), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

template <typename Function>
void* slot(Function* function) {
  return reinterpret_cast<void*>(function);
}

}  // namespace

void bind_model(py::module_& m) {
  PyType_Slot slots[] = {{Py_tp_new, slot(&make)},        {Py_tp_init, slot(&initialise)},
                         {Py_tp_dealloc, slot(&destroy)}, {Py_tp_call, slot(&PyVectorcall_Call)},
                         {Py_tp_methods, kMethods},       {Py_tp_getset, kProperties},
                         {Py_tp_members, kMembers},       {0, nullptr}};
  PyType_Spec spec = {"mkwrap._C.Model", sizeof(ModelObject), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_VECTORCALL, slots};
  PyObject* type = PyType_FromSpec(&spec);
  if (type == nullptr) throw py::error_already_set();
  m.attr("Model") = py::reinterpret_steal<py::object>(type);
  m.attr("TensorInfo") =
      py::module_::import("collections")
          .attr("namedtuple")("TensorInfo", "name path dtype shape strides alignment mutated",
                              py::arg("module") = "mkwrap._C");
}

}  // namespace mkwrap::binding
