// A checkpoint's manifest: as bytes, and as a message whose checksum is right, which the fuzzer would never guess.
#include "base/check.h"
#include "tests/fuzz/target.h"
#include "trainer/checkpoint/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoestring;  // NOLINT: this file is one function
  DecodeManifest(Bytes(data, size)).status().IgnoreError();
  checkpoint::Manifest manifest;
  if (!manifest.ParseFromArray(data, static_cast<int>(size))) return 0;
  manifest.DiscardUnknownFields();
  if (!ValidateManifest(manifest).ok()) return 0;
  const std::string encoded = EncodeManifest(manifest);
  const auto again = DecodeManifest(encoded);
  CHECK(again.ok());
  CHECK_EQ(again->SerializeAsString(), manifest.SerializeAsString());
  return 0;
}
