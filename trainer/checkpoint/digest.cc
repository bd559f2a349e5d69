// SHA-256 by OpenSSL, XXH3-128 by xxHash.
#include "trainer/checkpoint/digest.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include <algorithm>

#include "base/check.h"

namespace shoestring {

struct Sha256::State {
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
  void Start() { CHECK_EQ(EVP_DigestInit_ex(context, EVP_sha256(), nullptr), 1); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  CHECK(state_->context != nullptr);
  state_->Start();
}

Sha256::~Sha256() = default;

void Sha256::Update(absl::string_view bytes) {
  CHECK_EQ(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()), 1);
}

std::string Sha256::Finish() {
  std::string digest(kSha256Bytes, '\0');
  CHECK_EQ(EVP_DigestFinal_ex(state_->context, reinterpret_cast<unsigned char*>(digest.data()), nullptr), 1);
  state_->Start();
  return digest;
}

std::string Sha256::Of(absl::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

namespace {

std::string Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  return {reinterpret_cast<const char*>(canonical.digest), sizeof(canonical.digest)};
}

}  // namespace

std::string BlockSum(absl::string_view bytes) { return Canonical(XXH3_128bits(bytes.data(), bytes.size())); }

struct BlockSummer::State {
  XXH3_state_t* const xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

BlockSummer::BlockSummer(int64_t block_bytes) : state_(std::make_unique<State>()), block_bytes_(block_bytes) {
  CHECK(state_->xxh != nullptr);
  CHECK_GT(block_bytes, 0);
  XXH3_128bits_reset(state_->xxh);
}

BlockSummer::~BlockSummer() = default;

void BlockSummer::Update(absl::string_view bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), static_cast<size_t>(block_bytes_ - in_block_));
    XXH3_128bits_update(state_->xxh, bytes.data(), count);
    in_block_ += static_cast<int64_t>(count);
    bytes.remove_prefix(count);
    if (in_block_ == block_bytes_) EndBlock();
  }
}

std::string BlockSummer::Finish() {
  if (in_block_ > 0) EndBlock();
  return std::move(sums_);
}

void BlockSummer::EndBlock() {
  sums_ += Canonical(XXH3_128bits_digest(state_->xxh));
  XXH3_128bits_reset(state_->xxh);
  in_block_ = 0;
}

}  // namespace shoestring
