// Which instruction sets this CPU and its operating system offer, by the names /proc/cpuinfo uses.
//
// cpuid is asked directly: a compiler's own table differs between compilers and versions and would
// put a constructor into every model.
#ifndef MKWRAP_CPU_FEATURES_H_
#define MKWRAP_CPU_FEATURES_H_

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace mkwrap::runtime {

#if defined(__x86_64__)

// State the operating system must save for a feature to be usable: bits of XCR0.
constexpr uint64_t kNoState = 0;
constexpr uint64_t kAvxState = 0x6;
constexpr uint64_t kAvx512State = 0xe6;
constexpr uint64_t kAmxState = 0x60000;

enum class Register : uint8_t { kEax, kEbx, kEcx, kEdx };

struct Feature {
  const char* name;
  uint32_t leaf;
  uint32_t subleaf;
  Register where;
  uint32_t bit;
  uint64_t state;
};

// Bits as in Intel's Software Developer's Manual, volume 2, CPUID; lahf_lm and abm as in AMD's APM,
// volume 3, appendix E.
constexpr Feature kFeatures[] = {
    {"pni", 1, 0, Register::kEcx, 0, kNoState},
    {"ssse3", 1, 0, Register::kEcx, 9, kNoState},
    {"fma", 1, 0, Register::kEcx, 12, kAvxState},
    {"cx16", 1, 0, Register::kEcx, 13, kNoState},
    {"sse4_1", 1, 0, Register::kEcx, 19, kNoState},
    {"sse4_2", 1, 0, Register::kEcx, 20, kNoState},
    {"movbe", 1, 0, Register::kEcx, 22, kNoState},
    {"popcnt", 1, 0, Register::kEcx, 23, kNoState},
    {"xsave", 1, 0, Register::kEcx, 26, kNoState},
    {"avx", 1, 0, Register::kEcx, 28, kAvxState},
    {"f16c", 1, 0, Register::kEcx, 29, kAvxState},
    {"bmi1", 7, 0, Register::kEbx, 3, kNoState},
    {"avx2", 7, 0, Register::kEbx, 5, kAvxState},
    {"bmi2", 7, 0, Register::kEbx, 8, kNoState},
    {"avx512f", 7, 0, Register::kEbx, 16, kAvx512State},
    {"avx512dq", 7, 0, Register::kEbx, 17, kAvx512State},
    {"sha_ni", 7, 0, Register::kEbx, 29, kNoState},
    {"avx512cd", 7, 0, Register::kEbx, 28, kAvx512State},
    {"avx512bw", 7, 0, Register::kEbx, 30, kAvx512State},
    {"avx512vl", 7, 0, Register::kEbx, 31, kAvx512State},
    {"avx512vbmi", 7, 0, Register::kEcx, 1, kAvx512State},
    {"avx512_vnni", 7, 0, Register::kEcx, 11, kAvx512State},
    {"avx512_fp16", 7, 0, Register::kEdx, 23, kAvx512State},
    {"amx_bf16", 7, 0, Register::kEdx, 22, kAmxState},
    {"amx_tile", 7, 0, Register::kEdx, 24, kAmxState},
    {"amx_int8", 7, 0, Register::kEdx, 25, kAmxState},
    {"avx_vnni", 7, 1, Register::kEax, 4, kAvxState},
    {"avx512_bf16", 7, 1, Register::kEax, 5, kAvx512State},
    {"lahf_lm", 0x80000001u, 0, Register::kEcx, 0, kNoState},
    {"abm", 0x80000001u, 0, Register::kEcx, 5, kNoState},
};

// XCR0, or 0 where the operating system has not enabled xgetbv.
inline uint64_t saved_state() {
  constexpr uint32_t kOsxsave = 1u << 27;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kOsxsave) == 0) return 0;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

inline bool cpu_has(const char* name) {
  for (const Feature& feature : kFeatures) {
    if (strcmp(feature.name, name) != 0) continue;
    uint32_t registers[4] = {};
    if (__get_cpuid_count(feature.leaf, feature.subleaf, &registers[0], &registers[1],
                          &registers[2], &registers[3]) == 0)
      return false;
    const bool offered = ((registers[static_cast<int>(feature.where)] >> feature.bit) & 1u) != 0;
    return offered && (saved_state() & feature.state) == feature.state;
  }
  return false;
}

#elif defined(__aarch64__)

inline bool cpu_has(const char* name) {
  constexpr unsigned long kAsimd = 1ul << 1;  // HWCAP_ASIMD
  return strcmp(name, "asimd") == 0 && (getauxval(AT_HWCAP) & kAsimd) != 0;
}

#else

inline bool cpu_has(const char*) { return false; }

#endif

}  // namespace mkwrap::runtime

#endif  // MKWRAP_CPU_FEATURES_H_
