// SHA-256 against published digests, given at once and in pieces.
#include "loader/sha256.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "check.h"

namespace {

std::string hexadecimal(const std::string& text, std::size_t step, bool extensions) {
  mkwrap::loader::Sha256 sha(extensions);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  for (std::size_t at = 0; at < text.size(); at += step)
    sha.update(bytes + at, std::min(step, text.size() - at));
  std::string written;
  char digits[3];
  for (const std::uint8_t byte : sha.finish()) {
    std::snprintf(digits, sizeof(digits), "%02x", byte);
    written += digits;
  }
  return written;
}

}  // namespace

// NIST's examples of FIPS 180-4 (csrc.nist.gov, SHA256.pdf and the million letters of SHA-2).
constexpr std::pair<const char*, const char*> kExamples[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};
constexpr const char* kMillion = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

int main() {
  for (const bool extensions : {false, true})
    for (const std::size_t step : {1, 7, 63, 64, 65, 1000000}) {
      for (const auto& [text, digest] : kExamples)
        CHECK(hexadecimal(text, step, extensions) == digest);
      CHECK(hexadecimal(std::string(1000000, 'a'), step, extensions) == kMillion);
    }
}
