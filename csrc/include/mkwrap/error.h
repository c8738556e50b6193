// Filling an mkw_error. Part of the runtime that emitted models include: no STL, no exceptions.
#ifndef MKWRAP_ERROR_H_
#define MKWRAP_ERROR_H_

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "mkwrap/abi.h"

namespace mkwrap::runtime {

// Appends formatted text to a fixed buffer; what does not fit is cut off.
class Text {
 public:
  Text(char* buffer, size_t bytes) : at_(buffer), left_(bytes) {
    if (bytes > 0) buffer[0] = '\0';
  }

  [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_list(format, arguments);
    va_end(arguments);
  }

  void add_list(const char* format, va_list arguments) {
    const int wanted = vsnprintf(at_, left_, format, arguments);
    if (wanted < 0 || left_ == 0) return;
    const size_t written =
        static_cast<size_t>(wanted) < left_ ? static_cast<size_t>(wanted) : left_ - 1;
    at_ += written;
    left_ -= written;
  }

 private:
  char* at_;
  size_t left_;
};

// Record a failure and return its status. `error` may be NULL.
[[gnu::cold, gnu::noinline, gnu::format(printf, 4, 5)]] inline mkw_status fail(
    mkw_error* error, mkw_status status, int32_t argument, const char* format, ...) {
  if (error == nullptr) return status;
  error->status = status;
  error->argument = argument;
  Text text(error->message, sizeof(error->message));
  va_list arguments;
  va_start(arguments, format);
  text.add_list(format, arguments);
  va_end(arguments);
  return status;
}

// A kernel met an index outside its range. `where` names the step's origin.
[[gnu::cold, gnu::noinline]] inline mkw_status index_out_of_range(mkw_error* error,
                                                                  const char* kernel,
                                                                  const char* where) {
  return fail(error, MKW_ERROR_INDEX_RANGE, -1, "index out of range in %s%s%s", kernel,
              where[0] != '\0' ? ", from " : "", where);
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_ERROR_H_
