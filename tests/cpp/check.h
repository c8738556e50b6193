// Assertions that stay in release builds and say what they saw.
#ifndef MKWRAP_TESTS_CHECK_H_
#define MKWRAP_TESTS_CHECK_H_

#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      std::fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                 \
    }                                                                               \
  } while (false)

#define CHECK_HAS(text, part)                                                                   \
  do {                                                                                          \
    if (std::strstr((text), (part)) == nullptr) {                                               \
      std::fprintf(stderr, "%s:%d: \"%s\" lacks \"%s\"\n", __FILE__, __LINE__, (text), (part)); \
      std::exit(1);                                                                             \
    }                                                                                           \
  } while (false)

#endif  // MKWRAP_TESTS_CHECK_H_
