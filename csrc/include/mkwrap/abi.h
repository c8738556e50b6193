// The C ABI of a compiled model (C11 and C++17). A library exports one symbol, `mkw_get_api`.
//
// Objects: a *model* is immutable after creation (constants, loaded kernels; one device) and may be
// used by any number of contexts. *Weights* are another library's constants, to stand in for the
// model's own. A *context* owns the scratch memory of one call in flight; calls on one context must
// not overlap, calls on different contexts may. `run` takes no lock, and allocates only where
// dynamic sizes need more scratch memory than its context holds.
//
// Compatibility: fields are only ever appended to `mkw_api`; a change of meaning raises
// MKW_ABI_VERSION.
#ifndef MKWRAP_ABI_H_
#define MKWRAP_ABI_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// NOLINTBEGIN(modernize-macro-to-enum): the preprocessor and array bounds of C users need them.
#define MKW_ABI_VERSION 2u
#define MKW_MESSAGE_BYTES 768

// A size or stride that is only known at run time, in `mkw_tensor_info`.
#define MKW_DYNAMIC (-1)
// NOLINTEND(modernize-macro-to-enum)

typedef int32_t mkw_status;
enum {
  MKW_OK = 0,
  // An input or output tensor does not match the signature, or an output shares memory with another
  // tensor; `argument` says which.
  MKW_ERROR_INPUT = 1,
  // A data-dependent index was out of range; outputs and mutated inputs are unspecified. CUDA:
  // reported by a later `run` on the context or by `synchronize`, as a run does not wait.
  MKW_ERROR_INDEX_RANGE = 2,
  // A CUDA driver call failed; the message names the call and its error.
  MKW_ERROR_DRIVER = 3,
  // libcuda.so.1 is missing, too old, or finds no device.
  MKW_ERROR_NO_DRIVER = 4,
  // The device is of another architecture than the library's kernels; the message names both.
  MKW_ERROR_ARCHITECTURE = 5,
  // This CPU lacks instructions that the library was compiled for; the message names them.
  MKW_ERROR_ISA = 6,
  // Host memory could not be allocated, or scratch memory could not grow for the sizes of a run.
  MKW_ERROR_MEMORY = 7,
  // A null pointer, or a device ordinal that does not exist.
  MKW_ERROR_ARGUMENT = 8,
  // Header and library disagree on the ABI version (reported by mkwrap.hpp).
  MKW_ERROR_VERSION = 9,
  // An input that the run writes to shares memory with another input.
  MKW_ERROR_ALIASING = 10,
  // A file is no library, is damaged or cannot be loaded (reported by mkwrap.hpp).
  MKW_ERROR_FILE = 11,
  // Weights of a library that holds another program, or other choices of kernels.
  MKW_ERROR_WEIGHTS = 12,
  // Dynamic sizes are in their ranges, but what follows from them does not fit 64 bits or is more
  // than the device takes, such as blocks of a launch.
  MKW_ERROR_SIZE = 13,
  // A stream is being captured and the run needs more scratch memory than its context holds.
  MKW_ERROR_CAPTURE = 14
};

// Device types and dtype codes are DLPack's.
enum { MKW_DEVICE_CPU = 1, MKW_DEVICE_CUDA = 2 };
enum { MKW_INT = 0, MKW_UINT = 1, MKW_FLOAT = 2, MKW_BFLOAT = 4, MKW_BOOL = 6 };

typedef struct mkw_device {
  int32_t type;
  int32_t id;
} mkw_device;

typedef struct mkw_dtype {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} mkw_dtype;

// A tensor. Same layout as DLPack's DLTensor (asserted in mkwrap/dlpack.h), so an array of DLTensor
// may be passed. Strides are in elements and may be NULL for a row-major tensor. The first element
// lives at data + byte_offset.
typedef struct mkw_tensor {
  void* data;
  mkw_device device;
  int32_t ndim;
  mkw_dtype dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} mkw_tensor;

// What an input must be, or what an output must be given as. Strides of dimensions of size 1 (and
// all strides of a tensor without elements) are not checked.
typedef struct mkw_tensor_info {
  const char* name;  // the buffer's name in the manifest
  const char* path;  // how the user writes it: "args[0]", "output[1]"
  mkw_dtype dtype;
  int32_t ndim;
  const int64_t* shape;    // ndim elements, MKW_DYNAMIC where only known at run time
  const int64_t* strides;  // ndim elements, MKW_DYNAMIC where only known at run time
  int32_t alignment;       // bytes the address of the first element must be a multiple of
  int32_t mutated;         // an input that `run` writes to: must be writable
} mkw_tensor_info;

// A dynamic size: inputs[input].shape[dim] is scale * size + offset.
typedef struct mkw_symbol_info {
  const char* name;  // of its Dim
  int64_t low;       // inclusive
  int64_t high;      // inclusive; INT64_MAX: without a bound
  int32_t input;
  int32_t dim;
  int64_t scale;  // at least 1
  int64_t offset;
} mkw_symbol_info;

// How messages write the sizes of a tensor where some are dynamic.
typedef struct mkw_size_text {
  const char* shape;    // "[rows, 2*seq, 64]"
  const char* strides;  // "[128*seq, 64, 1]"
  const char* ranges;   // of the shape's symbols: " with rows in 1..300, seq >= 1"; may be ""
} mkw_size_text;

typedef struct mkw_error {
  mkw_status status;
  int32_t argument;  // MKW_ERROR_INPUT, MKW_ERROR_ALIASING: index of the input, or input_count +
                     // index of the output; else -1
  char message[MKW_MESSAGE_BYTES];
} mkw_error;

typedef struct mkw_model mkw_model;
typedef struct mkw_context mkw_context;
typedef struct mkw_weights mkw_weights;

typedef struct mkw_api mkw_api;

struct mkw_api {
  uint32_t version;     // MKW_ABI_VERSION of the library
  uint32_t size;        // sizeof(mkw_api) of the library
  int32_t device_type;  // MKW_DEVICE_CPU or MKW_DEVICE_CUDA
  int32_t input_count;
  int32_t output_count;  // tensors the caller provides; views and constants in the result are in
                         // the manifest only
  const mkw_tensor_info* inputs;
  const mkw_tensor_info* outputs;
  const char* manifest;  // JSON, UTF-8, NUL-terminated; see docs/manifest.md
  uint64_t manifest_bytes;
  int64_t constant_bytes;  // weights a model holds (CUDA: in device memory)
  int64_t traffic_bytes;   // estimate of the bytes one run reads and writes; of the largest dynamic
                           // sizes, MKW_DYNAMIC where they have no upper bounds

  // Create a model on a device ordinal (CPU: 0), from any number of threads. CUDA: retains the
  // device's primary context, loads the kernels and uploads the constants; once per device, as all
  // models of a library on one device are one object with a number of references. The device's
  // current context on this thread is unchanged on return. On failure *model is NULL, nothing stays
  // allocated, and *error (may be NULL) is filled.
  mkw_status (*model_create)(int32_t device, mkw_model** model, mkw_error* error);
  // Give up the caller's reference; the model lives on until its last context is destroyed. NULL is
  // allowed.
  void (*model_destroy)(mkw_model* model);

  // Create a context: allocates the scratch memory that every run on it uses. With dynamic sizes
  // it begins with none, and runs and context_reserve make it grow.
  mkw_status (*context_create)(mkw_model* model, mkw_context** context, mkw_error* error);
  // Destroy a context on which no run is in flight (CUDA: its streams have been synchronised). NULL
  // is allowed.
  void (*context_destroy)(mkw_context* context);

  // Run once: `inputs` has input_count tensors, `outputs` output_count tensors that the caller
  // allocated. What is written, outputs and mutated inputs, must share memory with no other tensor.
  // CUDA: work is enqueued on `stream` (a CUstream; NULL is the legacy default stream)
  // and not waited for; where an earlier run on this context has met an index out of range
  // meanwhile, that is reported now and nothing is enqueued. CPU: `stream` is ignored and results
  // are complete on return. After a failure the context is usable again.
  mkw_status (*run)(mkw_context* context, const mkw_tensor* inputs, const mkw_tensor* outputs,
                    void* stream);

  // The error of the last `run` on this context that failed; owned by the context.
  const mkw_error* (*last_error)(const mkw_context* context);

  // Fill shapes[i] and strides[i] (each with room for outputs[i].ndim elements; either array may be
  // NULL) for the given inputs, which are checked first.
  mkw_status (*output_shapes)(const mkw_tensor* inputs, int64_t* const* shapes,
                              int64_t* const* strides, mkw_error* error);

  // Fill *bytes with the most scratch memory that a run needs (CUDA: device memory), MKW_DYNAMIC
  // where dynamic sizes have no upper bounds.
  mkw_status (*workspace_bytes)(const mkw_model* model, int64_t* bytes);

  // Wait until the device has done all work given to it, then report, once, what the context's runs
  // met meanwhile: MKW_ERROR_INDEX_RANGE or MKW_ERROR_DRIVER. May be called while the context is in
  // use. CPU: MKW_OK.
  mkw_status (*synchronize)(mkw_context* context, mkw_error* error);

  // Digest of all that the library is but for the values of its constants.
  const char* program;
  const char* parts;  // where the constants lie; see mkwrap/parts.h

  // Make weights of the constants of `source`, the table of a library with an equal `program`.
  // CUDA: copied to the model's device. CPU: not copied, so that `source` must stay loaded until
  // the weights and all contexts with them are destroyed. On failure *weights is NULL.
  mkw_status (*weights_create)(mkw_model* model, const mkw_api* source, mkw_weights** weights,
                               mkw_error* error);
  // Give up the caller's reference; weights live on until their last context is destroyed. NULL is
  // allowed.
  void (*weights_destroy)(mkw_weights* weights);
  // As context_create, with weights in the place of the library's own constants. A context keeps
  // its weights: to swap them under load, give contexts with the new ones to the calls to come.
  // CUDA: weights made for another model are refused (MKW_ERROR_WEIGHTS).
  mkw_status (*context_create_with)(mkw_model* model, mkw_weights* weights, mkw_context** context,
                                    mkw_error* error);

  // The dynamic sizes; none in a library of static shapes.
  int32_t symbol_count;
  int32_t kernel_count;
  const mkw_symbol_info* symbols;

  // Fill values[i] with the size of symbols[i] in these inputs, which are checked first.
  mkw_status (*bind_symbols)(const mkw_tensor* inputs, int64_t* values, mkw_error* error);

  // Fill *bytes with the scratch memory that a run on these inputs, which are checked first, needs.
  mkw_status (*scratch_bytes)(const mkw_model* model, const mkw_tensor* inputs, int64_t* bytes,
                              mkw_error* error);

  // Fill numbers[i] with the alternative of kernel i that a run on these inputs, which are checked
  // first, uses: what the manifest's `alternative` says, kernels in its order.
  mkw_status (*elected)(const mkw_model* model, const mkw_tensor* inputs, uint32_t* numbers,
                        mkw_error* error);

  // Let a context's scratch memory grow to what runs on these inputs need, or with NULL to what any
  // run needs (MKW_ERROR_SIZE where sizes have no upper bounds), so that those runs allocate
  // nothing. No run on the context is being made meanwhile; CUDA: those in flight are ordered
  // before `stream`, which is waited for and must not be captured.
  mkw_status (*context_reserve)(mkw_context* context, const mkw_tensor* inputs, void* stream,
                                mkw_error* error);

  // Of the inputs, then of the outputs; NULL in a library of static shapes.
  const mkw_size_text* size_texts;
};

// Return the library's table, or NULL if it does not speak `version`. The table lives as long as
// the library is loaded.
const mkw_api* mkw_get_api(uint32_t version);

typedef const mkw_api* (*mkw_get_api_function)(uint32_t version);

#ifdef __cplusplus
}
#endif

#endif  // MKWRAP_ABI_H_
