// Manifests between bytes and meaning: canonical, checksummed, and checked before anything in them is believed.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "trainer/checkpoint/manifest.pb.h"

namespace shoestring {

inline constexpr uint32_t kCheckpointFormatVersion = 1;
inline constexpr absl::string_view kManifestName = "manifest.pb";
inline constexpr int64_t kMaxManifestBytes = int64_t{512} << 20;
inline constexpr int64_t kMinBlockBytes = 64;
inline constexpr int64_t kMaxBlockBytes = int64_t{64} << 20;

// Fills in the checksum; the bytes of the file. `manifest` must pass ValidateManifest.
std::string EncodeManifest(checkpoint::Manifest& manifest);

// Errors: DATA_LOSS (not whole, not canonical, contents that cannot be), FAILED_PRECONDITION for a later version.
absl::StatusOr<checkpoint::Manifest> DecodeManifest(absl::string_view bytes);

// What holds in every manifest: known version, legal names, sizes in bounds, one sum a block, tensors sorted and each
// covered by its slices. Errors: DATA_LOSS.
absl::Status ValidateManifest(const checkpoint::Manifest& manifest);

// Of A-Z a-z 0-9 . _ -, not starting with a dot, at most 255 characters: can neither leave its directory nor lie in a
// terminal.
bool IsPlainName(absl::string_view name);

// Blocks of a file of this size.
int64_t BlockCount(int64_t size_bytes, int64_t block_bytes);

}  // namespace shoestring
