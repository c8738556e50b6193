// A loaded model as Python calls it: the state behind `_C.Model`, and one call.
#ifndef MKWRAP_BINDING_MODEL_H_
#define MKWRAP_BINDING_MODEL_H_

#include <Python.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "binding/library.h"
#include "binding/torch_types.h"
#include "timing/driver.h"

namespace mkwrap::binding {

// What a call with all inputs as positional tensors returns.
enum class Flat { kNone, kSingle, kTuple, kList };

struct ModelState {
  // `loaded` dies before the library that its code lives in.
  std::shared_ptr<const Library> library;
  std::unique_ptr<LoadedModel> loaded;
  // CUDA: the driver's own table, to ask about captures.
  std::shared_ptr<const timing::Driver> driver;
  TorchTypes torch;
  Flat flat = Flat::kNone;
  // Whether a run lasts long enough to be worth giving up the interpreter lock.
  bool long_run = false;
};

// Open a library file (a descriptor) without creating the model; null with a Python exception set.
std::unique_ptr<ModelState> open_state(int file, const std::string& path, bool exchange);

// Create the model on a device; false with a Python exception set.
bool create_model(ModelState& state, int device);

// Let the calls to come use the constants of another library of the same program; false with a
// Python exception set.
bool use_weights(ModelState& state, const ModelState& source);

// Wait for the device and report what earlier calls met; false with a Python exception set.
bool synchronize(ModelState& state);

// What the library says of a run on these inputs, before it.
struct RunFacts {
  std::int64_t scratch_bytes = 0;
  std::vector<std::uint32_t> elected;  // per kernel the alternative that runs
};

// Ask for it; false with a Python exception set.
bool ask(ModelState& state, PyObject* const* inputs, RunFacts& facts);

// Run on input_count tensors. The result is one tensor (Flat::kSingle), a tuple or a list; null
// with an exception set.
PyObject* run(ModelState& state, PyObject* const* inputs, Flat result);

// Run into the caller's tensors; false with a Python exception set.
bool run_into(ModelState& state, PyObject* const* inputs, PyObject* const* outputs);

}  // namespace mkwrap::binding

#endif  // MKWRAP_BINDING_MODEL_H_
