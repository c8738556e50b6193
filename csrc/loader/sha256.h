// SHA-256 (FIPS 180-4).
#ifndef MKWRAP_LOADER_SHA_H_
#define MKWRAP_LOADER_SHA_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace mkwrap::loader {

class Sha256 {
 public:
  using Digest = std::array<std::uint8_t, 32>;

  // `extensions`: use the processor's instructions for it where it has them.
  explicit Sha256(bool extensions = true);
  void update(const std::uint8_t* bytes, std::size_t count);
  // The digest of all that was given; nothing may follow.
  Digest finish();

 private:
  static constexpr std::size_t kBlock = 64;
  using State = std::array<std::uint32_t, 8>;
  using Compress = void (*)(State&, const std::uint8_t*, std::size_t blocks);

  Compress compress_;

  // The initial hash value: first 32 bits of the fractional parts of the square roots of the first
  // eight primes (5.3.3).
  State state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, kBlock> pending_{};
  std::size_t pending_bytes_ = 0;
  std::uint64_t total_ = 0;
};

}  // namespace mkwrap::loader

#endif  // MKWRAP_LOADER_SHA_H_
