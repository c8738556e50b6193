#include "loader/sha256.h"

#include <algorithm>
#include <cstring>

#include "mkwrap/cpu_features.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mkwrap::loader {

namespace {

// First 32 bits of the fractional parts of the cube roots of the first 64 primes (4.2.2).
alignas(16) constexpr std::uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

using State = std::array<std::uint32_t, 8>;

constexpr std::uint32_t rotate(std::uint32_t x, int by) { return (x >> by) | (x << (32 - by)); }

std::uint32_t big_endian(const std::uint8_t* at) {
  std::uint32_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  return __builtin_bswap32(word);
}

// Section 6.2.2, one block after the other.
void portable(State& state, const std::uint8_t* bytes, std::size_t blocks) {
  for (; blocks > 0; --blocks, bytes += 64) {
    std::uint32_t w[64];
    for (int t = 0; t < 16; ++t) w[t] = big_endian(bytes + std::ptrdiff_t{4} * t);
    for (int t = 16; t < 64; ++t) {
      const std::uint32_t s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ (w[t - 15] >> 3);
      const std::uint32_t s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ (w[t - 2] >> 10);
      w[t] = s1 + w[t - 7] + s0 + w[t - 16];
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (int t = 0; t < 64; ++t) {
      const std::uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[t] + w[t];
      const std::uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = d + t1;
      d = c;
      c = b;
      b = a;
      a = t1 + t2;
    }
    const State added = {a, b, c, d, e, f, g, h};
    for (std::size_t k = 0; k < state.size(); ++k) state[k] += added[k];
  }
}

#if defined(__x86_64__)

// With the SHA extensions (Intel's Software Developer's Manual, volume 2, SHA256RNDS2 and
// SHA256MSG1/2), which keep the state as the words ABEF and CDGH.
[[gnu::target("sha,sse4.1")]] void extended(State& state, const std::uint8_t* bytes,
                                            std::size_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  const auto* words = reinterpret_cast<const __m128i*>(state.data());
  const __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128(words), 0xb1);
  const __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(words + 1), 0x1b);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
  __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
  for (; blocks > 0; --blocks, bytes += 64) {
    const __m128i abef_before = abef;
    const __m128i cdgh_before = cdgh;
    __m128i w[4];
    for (int k = 0; k < 4; ++k)
      w[k] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes) + k), swap);
    for (int k = 0; k < 16; ++k) {
      __m128i& now = w[k % 4];
      const __m128i last = w[(k + 3) % 4];
      const __m128i sum =
          _mm_add_epi32(now, _mm_load_si128(reinterpret_cast<const __m128i*>(kRound) + k));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
      const __m128i seven_before = _mm_alignr_epi8(last, w[(k + 2) % 4], 4);
      const __m128i partial = _mm_sha256msg1_epu32(now, w[(k + 1) % 4]);
      now = _mm_sha256msg2_epu32(_mm_add_epi32(partial, seven_before), last);
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
  const __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  auto* out = reinterpret_cast<__m128i*>(state.data());
  _mm_storeu_si128(out, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(out + 1, _mm_alignr_epi8(dchg, feba, 8));
}

bool has_extensions() { return runtime::cpu_has("sha_ni") && runtime::cpu_has("sse4_1"); }

#else

constexpr auto extended = portable;

constexpr bool has_extensions() { return false; }

#endif

}  // namespace

Sha256::Sha256(bool extensions)
    : compress_(extensions && has_extensions() ? &extended : &portable) {}

void Sha256::update(const std::uint8_t* bytes, std::size_t count) {
  total_ += count;
  if (pending_bytes_ > 0) {
    const std::size_t taken = std::min(count, kBlock - pending_bytes_);
    std::memcpy(pending_.data() + pending_bytes_, bytes, taken);
    pending_bytes_ += taken;
    bytes += taken;
    count -= taken;
    if (pending_bytes_ < kBlock) return;
    compress_(state_, pending_.data(), 1);
    pending_bytes_ = 0;
  }
  compress_(state_, bytes, count / kBlock);
  pending_bytes_ = count % kBlock;
  if (pending_bytes_ > 0)
    std::memcpy(pending_.data(), bytes + (count - pending_bytes_), pending_bytes_);
}

Sha256::Digest Sha256::finish() {
  const std::uint64_t bits = total_ * 8;
  // A one bit, zeros, and the length in bits fill the last block (5.1.1).
  std::array<std::uint8_t, 2 * kBlock> padding{0x80};
  const std::size_t zeros = (2 * kBlock - 9 - pending_bytes_) % kBlock;
  for (std::size_t k = 0; k < 8; ++k)
    padding[1 + zeros + k] = static_cast<std::uint8_t>(bits >> (56 - 8 * k));
  update(padding.data(), 1 + zeros + 8);
  Digest digest{};
  for (std::size_t k = 0; k < digest.size(); ++k)
    digest[k] = static_cast<std::uint8_t>(state_[k / 4] >> (24 - 8 * (k % 4)));
  return digest;
}

}  // namespace mkwrap::loader
