#include "loader/seal.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "loader/sha256.h"

namespace mkwrap::loader {

namespace {

constexpr char kElfMagic[] = {0x7f, 'E', 'L', 'F'};
constexpr char kMagic[] = {'M', 'K', 'W', 'S', 'E', 'A', 'L', '1'};
constexpr std::size_t kDigestBytes = 32;
constexpr std::size_t kSignedBytes = sizeof(kMagic) + 8;
constexpr std::size_t kTrailerBytes = kSignedBytes + kDigestBytes;
constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

// Read `count` bytes at an offset; false where the file has no more.
bool read_at(int file, std::uint8_t* to, std::size_t count, std::uint64_t offset) {
  while (count > 0) {
    const ssize_t got = pread(file, to, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    offset += static_cast<std::uint64_t>(got);
    count -= static_cast<std::size_t>(got);
  }
  return true;
}

// Read, not mapped: a file that is cut short meanwhile must not end the process with SIGBUS.
bool image_digest(int file, std::uint64_t size, const std::uint8_t* head, Sha256::Digest& digest) {
  Sha256 sha;
  std::vector<std::uint8_t> chunk(std::min<std::uint64_t>(size, kChunkBytes));
  for (std::uint64_t done = 0; done < size;) {
    const std::size_t count = std::min<std::uint64_t>(size - done, chunk.size());
    if (!read_at(file, chunk.data(), count, done)) return false;
    sha.update(chunk.data(), count);
    done += count;
  }
  sha.update(head, kSignedBytes);
  digest = sha.finish();
  return true;
}

}  // namespace

std::string seal_fault(int file) {
  struct stat facts = {};
  if (fstat(file, &facts) != 0) return std::string("cannot be read: ") + std::strerror(errno);
  const auto size = static_cast<std::uint64_t>(facts.st_size);
  if (size < sizeof(kElfMagic) + kTrailerBytes)
    return "is not a mkwrap library: it has only " + std::to_string(size) + " bytes";
  const std::uint64_t image = size - kTrailerBytes;
  std::uint8_t start[sizeof(kElfMagic)];
  std::uint8_t trailer[kTrailerBytes];
  if (!read_at(file, start, sizeof(start), 0) || !read_at(file, trailer, sizeof(trailer), image))
    return "cannot be read to its end";
  if (std::memcmp(start, kElfMagic, sizeof(start)) != 0)
    return "is not a mkwrap library: it is not a shared library";
  if (std::memcmp(trailer, kMagic, sizeof(kMagic)) != 0)
    return "is not a mkwrap library, or its end is missing";
  std::uint64_t length = 0;
  for (int k = 7; k >= 0; --k) length = length << 8 | trailer[sizeof(kMagic) + k];
  Sha256::Digest digest{};
  if (length != image || !image_digest(file, image, trailer, digest) ||
      std::memcmp(digest.data(), trailer + kSignedBytes, kDigestBytes) != 0)
    return "is damaged: its checksum does not match its contents";
  return "";
}

}  // namespace mkwrap::loader
