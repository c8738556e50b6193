// R1: whatever does not match the signature is an error that names the argument, what was expected
// and what came.
#include <chrono>
#include <cstdint>

#include "check.h"
#include "mkwrap/check.h"
#include "mkwrap/mkwrap.hpp"
#include "mkwrap/overlap.h"

namespace {

constexpr std::int64_t kShape[] = {2, 3};
constexpr std::int64_t kStrides[] = {3, 1};
constexpr mkw_tensor_info kInfo = {"x", "args[1]", {MKW_FLOAT, 32, 1}, 2, kShape, kStrides, 16, 0};
constexpr mkw_device kCpu = {MKW_DEVICE_CPU, 0};

alignas(64) float data[32];

struct Subject {
  std::int64_t shape[3] = {2, 3, 1};
  std::int64_t strides[3] = {3, 1, 1};
  mkw_tensor tensor = {data, kCpu, 2, {MKW_FLOAT, 32, 1}, shape, strides, 0};
};

void refused(const Subject& subject, const char* message, const mkw_tensor_info& info = kInfo) {
  mkw_error error = {};
  CHECK(mkwrap::runtime::check(&subject.tensor, &info, 1, 4, kCpu, &error) == MKW_ERROR_INPUT);
  CHECK(error.status == MKW_ERROR_INPUT && error.argument == 4);
  if (std::strcmp(error.message, message) != 0) std::fprintf(stderr, "got: %s\n", error.message);
  CHECK(std::strcmp(error.message, message) == 0);
}

void accepted(const Subject& subject, const mkw_tensor_info& info = kInfo) {
  mkw_error error = {};
  CHECK(mkwrap::runtime::check(&subject.tensor, &info, 1, 4, kCpu, &error) == MKW_OK);
}

void test_r1_refused() {
  Subject s;
  s.tensor.shape[1] = 4;
  refused(s, "args[1]: wrong shape: expected [2, 3], got [2, 4]");
  s = Subject();
  s.tensor.dtype = {MKW_INT, 64, 1};
  refused(s, "args[1]: wrong dtype: expected float32, got int64");
  s.tensor.dtype = {MKW_FLOAT, 64, 1};
  refused(s, "args[1]: wrong dtype: expected float32, got float64");
  s.tensor.dtype = {MKW_BFLOAT, 16, 1};
  refused(s, "args[1]: wrong dtype: expected float32, got bfloat16");
  s.tensor.dtype = {MKW_BOOL, 8, 1};
  refused(s, "args[1]: wrong dtype: expected float32, got bool");
  s.tensor.dtype = {5, 64, 1};
  refused(s, "args[1]: wrong dtype: expected float32, got complex64");
  s.tensor.dtype = {99, 8, 1};
  refused(s, "args[1]: wrong dtype: expected float32, got dtype (99, 8 bits)");
  Subject strided;
  strided.strides[0] = 6;
  strided.strides[1] = 2;
  strided.tensor.strides = strided.strides;
  strided.tensor.shape = strided.shape;
  refused(strided, "args[1]: wrong strides: expected [3, 1] for shape [2, 3], got [6, 2]");
  Subject rank;
  rank.tensor.shape = rank.shape;
  rank.tensor.strides = rank.strides;
  rank.tensor.ndim = 3;
  refused(rank, "args[1]: wrong rank: expected 2 dimensions [2, 3], got 3 [2, 3, 1]");
  Subject device;
  device.tensor.shape = device.shape;
  device.tensor.strides = device.strides;
  device.tensor.device = {MKW_DEVICE_CUDA, 1};
  refused(device, "args[1]: wrong device: expected cpu, got cuda:1");
  Subject null;
  null.tensor.shape = null.shape;
  null.tensor.strides = null.strides;
  null.tensor.data = nullptr;
  refused(null, "args[1]: expected the address of the first element, got a null pointer");
  Subject unaligned;
  unaligned.tensor.shape = unaligned.shape;
  unaligned.tensor.strides = unaligned.strides;
  unaligned.tensor.byte_offset = 4;
  mkw_error error = {};
  CHECK(mkwrap::runtime::check(&unaligned.tensor, &kInfo, 1, 0, kCpu, &error) == MKW_ERROR_INPUT);
  CHECK_HAS(error.message,
            "args[1]: wrong alignment: expected an address that is a multiple of 16 bytes, got 0x");
}

void test_dynamic_sizes_are_named() {
  static constexpr std::int64_t kFree[] = {MKW_DYNAMIC, 3};
  constexpr mkw_tensor_info kDynamic = {"x", "args[0]", {MKW_FLOAT, 32, 1}, 2, kFree, kStrides,
                                        16,  0};
  constexpr mkw_size_text kTexts[] = {{"", "", ""}, {"[2*n, 3]", "[3, 1]", " with n in 1..8"}};
  const auto said = [&](const Subject& subject, const char* message) {
    mkw_error error = {};
    CHECK(mkwrap::runtime::check(&subject.tensor, &kDynamic, 1, 1, kCpu, &error, kTexts) ==
          MKW_ERROR_INPUT);
    CHECK(error.argument == 1);
    CHECK(std::strcmp(error.message, message) == 0);
  };
  Subject s;
  s.tensor.shape = s.shape;
  s.tensor.strides = s.strides;
  s.shape[1] = 4;
  said(s, "args[0]: wrong shape: expected [2*n, 3] with n in 1..8, got [2, 4]");
  s.shape[1] = 3;
  s.strides[0] = 9;
  said(s, "args[0]: wrong strides: expected [3, 1] for shape [2, 3], got [9, 1]");
  s.tensor.ndim = 1;
  said(s, "args[0]: wrong rank: expected 2 dimensions [2*n, 3] with n in 1..8, got 1 [2]");
}

void test_what_does_not_matter() {
  Subject s;
  accepted(s);
  Subject offset;
  offset.tensor.shape = offset.shape;
  offset.tensor.strides = offset.strides;
  offset.tensor.byte_offset = 16;
  accepted(offset);
  Subject row_major;
  row_major.tensor.shape = row_major.shape;
  row_major.tensor.strides = nullptr;
  accepted(row_major);
  Subject pinned;
  pinned.tensor.shape = pinned.shape;
  pinned.tensor.strides = pinned.strides;
  pinned.tensor.device = {3, 0};
  accepted(pinned);

  // Strides of a dimension of size 1.
  static constexpr std::int64_t kOneShape[] = {1, 3};
  constexpr mkw_tensor_info kOne = {"x", "args[1]", {MKW_FLOAT, 32, 1}, 2, kOneShape, kStrides,
                                    16,  0};
  Subject one;
  one.shape[0] = 1;
  one.strides[0] = 77;
  one.tensor.shape = one.shape;
  one.tensor.strides = one.strides;
  accepted(one, kOne);

  // A tensor without elements: neither strides nor address.
  static constexpr std::int64_t kEmptyShape[] = {0, 3};
  constexpr mkw_tensor_info kEmpty = {"x", "args[1]", {MKW_FLOAT, 32, 1}, 2, kEmptyShape, kStrides,
                                      16,  0};
  Subject empty;
  empty.shape[0] = 0;
  empty.strides[1] = 9;
  empty.tensor.shape = empty.shape;
  empty.tensor.strides = empty.strides;
  empty.tensor.data = nullptr;
  accepted(empty, kEmpty);
}

// Two inputs, of which the second is written to if `mutated`, and two outputs, by their first
// elements.
mkw_error apart(std::int64_t (&starts)[4], int mutated) {
  static std::int64_t shape[] = {2, 3};
  mkw_tensor_info infos[4];
  mkw_tensor tensors[4];
  const char* const paths[] = {"args[0]", "args[1]", "output[0]", "output[1]"};
  for (int i = 0; i < 4; ++i) {
    infos[i] = kInfo;
    infos[i].path = paths[i];
    tensors[i] = {data, kCpu, 2, {MKW_FLOAT, 32, 1}, shape, nullptr, 0};
    tensors[i].byte_offset = static_cast<std::uint64_t>(starts[i]) * sizeof(float);
  }
  infos[1].mutated = mutated;
  mkw_error error = {};
  const mkw_status status =
      mkwrap::runtime::check_apart<2, 2>(tensors, infos, tensors + 2, infos + 2, &error);
  CHECK(status == error.status);
  return error;
}

void test_what_is_written_shares_no_memory() {
  constexpr struct {
    std::int64_t starts[4];
    int mutated;
    mkw_status status;
    int argument;
    const char* message;
  } kCases[] = {
      {{0, 0, 6, 12}, 0, MKW_OK, 0, ""},  // inputs that are only read may be one
      {{0, 5, 11, 17}, 0, MKW_OK, 0, ""},
      {{0, 5, 11, 17},
       1,
       MKW_ERROR_ALIASING,
       1,
       "args[1] is written to, and shares memory with args[0]"},
      {{0, 6, 6, 12},
       0,
       MKW_ERROR_INPUT,
       2,
       "output[0]: expected memory of its own, got memory shared with args[1]"},
      {{0, 6, 6, 12}, 1, MKW_ERROR_INPUT, 2, "output[0]: expected memory of its own"},
      {{0, 6, 17, 12}, 0, MKW_ERROR_INPUT, 3, "shared with output[0]"},
      {{0, 6, 12, 5}, 0, MKW_ERROR_INPUT, 3, "shared with args[0]"},
  };
  for (const auto& row : kCases) {
    std::int64_t starts[4];
    std::memcpy(starts, row.starts, sizeof(starts));
    const mkw_error error = apart(starts, row.mutated);
    CHECK(error.status == row.status);
    CHECK(error.argument == row.argument);
    CHECK_HAS(error.message, row.message);
  }
}

void test_spans() {
  using mkwrap::runtime::span_of;
  std::int64_t shape[] = {2, 3};
  std::int64_t strides[] = {-4, 1};
  mkw_tensor tensor = {data, kCpu, 2, {MKW_FLOAT, 32, 1}, shape, strides, 16};
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  CHECK(span_of(tensor).low == begin && span_of(tensor).high == begin + sizeof(float) * 7);
  shape[1] = 0;
  CHECK(span_of(tensor).low == 0 && span_of(tensor).high == 0);
}

// A long shape must not run over the message.
void test_long_message() {
  std::int64_t shape[64];
  for (std::int64_t& n : shape) n = INT64_MAX;
  Subject s;
  s.tensor.shape = shape;
  s.tensor.ndim = 64;
  mkw_error error = {};
  CHECK(mkwrap::runtime::check(&s.tensor, &kInfo, 1, 0, kCpu, &error) == MKW_ERROR_INPUT);
  CHECK(std::strlen(error.message) == MKW_MESSAGE_BYTES - 1);
}

void print_cost() {
  constexpr int kCalls = 1000000;
  Subject s;
  const auto start = std::chrono::steady_clock::now();
  mkw_status all = MKW_OK;
  for (int i = 0; i < kCalls; ++i) {
    asm volatile("" : : "r"(&s) : "memory");
    all |= mkwrap::runtime::check(&s.tensor, &kInfo, 1, 0, kCpu, nullptr);
  }
  const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
  CHECK(all == MKW_OK);
  std::printf("one check of a 2-d tensor: %.1f ns\n", spent.count() / kCalls);
}

void print_cost_of_overlap() {
  constexpr int kCalls = 1000000;
  std::int64_t shape[] = {2, 3};
  const mkw_tensor input = {data, kCpu, 2, {MKW_FLOAT, 32, 1}, shape, nullptr, 0};
  const mkw_tensor output = {data, kCpu, 2, {MKW_FLOAT, 32, 1}, shape, nullptr, 32};
  const auto start = std::chrono::steady_clock::now();
  mkw_status all = MKW_OK;
  for (int i = 0; i < kCalls; ++i) {
    asm volatile("" : : "r"(&input), "r"(&output) : "memory");
    all |= mkwrap::runtime::check_apart<1, 1>(&input, &kInfo, &output, &kInfo, nullptr);
  }
  const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
  CHECK(all == MKW_OK);
  std::printf("an output apart from one input: %.1f ns\n", spent.count() / kCalls);
}

}  // namespace

int main() {
  test_r1_refused();
  test_dynamic_sizes_are_named();
  test_what_does_not_matter();
  test_what_is_written_shares_no_memory();
  test_spans();
  test_long_message();
  print_cost();
  print_cost_of_overlap();
}
