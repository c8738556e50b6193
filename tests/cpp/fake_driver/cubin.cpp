// Attribute numbers and layouts of .nv.info as `cuobjdump -elf` shows them: KPARAM_INFO 0x17,
// MAX_THREADS 0x05, REQNTID 0x10. A record is a format byte (4: sized value), an attribute byte, a
// 16-bit size or value, and the value.
#include "cubin.h"

#include <elf.h>

#include <cstring>

namespace {

constexpr std::uint8_t kSizedValue = 4;
constexpr std::uint8_t kMaxThreads = 0x05;
constexpr std::uint8_t kRequiredThreads = 0x10;
constexpr std::uint8_t kParameter = 0x17;
const std::string kInfo = ".nv.info.";
const std::string kShared = ".nv.shared.";

template <class T>
T read(const std::uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

void read_parameter(const std::uint8_t* value, CubinKernel& kernel) {
  const auto ordinal = read<std::uint16_t>(value + 4);
  const auto bits = read<std::uint32_t>(value + 8);
  if (kernel.parameter_bytes.size() <= ordinal) kernel.parameter_bytes.resize(ordinal + 1u);
  kernel.parameter_bytes[ordinal] = bits >> 18;
}

void read_info(const std::uint8_t* at, const std::uint8_t* end, CubinKernel& kernel) {
  while (at + 4 <= end) {
    const std::uint8_t format = at[0];
    const std::uint8_t attribute = at[1];
    const auto size = read<std::uint16_t>(at + 2);
    const std::uint8_t* value = at + 4;
    if (format == kSizedValue && attribute == kParameter && size >= 12)
      read_parameter(value, kernel);
    if (format == kSizedValue && (attribute == kMaxThreads || attribute == kRequiredThreads) &&
        size >= 12)
      kernel.max_threads = read<std::uint32_t>(value) * read<std::uint32_t>(value + 4) *
                           read<std::uint32_t>(value + 8);
    at = value + (format == kSizedValue ? size : 0);
  }
}

}  // namespace

bool parse_cubin(const void* image, Cubin& cubin) {
  const auto* base = static_cast<const std::uint8_t*>(image);
  if (std::memcmp(base, ELFMAG, SELFMAG) != 0 || base[EI_CLASS] != ELFCLASS64) return false;
  const auto header = read<Elf64_Ehdr>(base);
  // CUDA 13 moved the architecture from the lowest byte of the flags to the second.
  cubin.arch = static_cast<int>((header.e_flags & 0xff) > 20 ? header.e_flags & 0xff
                                                             : (header.e_flags >> 8) & 0xff);
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  std::memcpy(sections.data(), base + header.e_shoff, sections.size() * sizeof(Elf64_Shdr));
  const auto* names = reinterpret_cast<const char*>(base + sections[header.e_shstrndx].sh_offset);
  for (const Elf64_Shdr& section : sections) {
    const std::string name = names + section.sh_name;
    const std::uint8_t* at = base + section.sh_offset;
    if (name.compare(0, kInfo.size(), kInfo) == 0)
      read_info(at, at + section.sh_size, cubin.kernels[name.substr(kInfo.size())]);
  }
  for (const Elf64_Shdr& section : sections) {
    const std::string name = names + section.sh_name;
    if (name.compare(0, kShared.size(), kShared) != 0) continue;
    const auto kernel = cubin.kernels.find(name.substr(kShared.size()));
    if (kernel != cubin.kernels.end()) kernel->second.static_shared_bytes = section.sh_size;
  }
  return true;
}
