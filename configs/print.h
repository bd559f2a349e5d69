// The canonical text of a config, and the two hashes that every checkpoint records.
#pragma once

#include <string>

#include "configs/schema/run.pb.h"

namespace shoestring::config {

// Protobuf text, fields in the order of the schema, with the header that editors understand. Parsing it gives the same
// config. Two equal configs have the same text.
std::string CanonicalText(const RunConfig& config);

// Says every default: scalars with a default, and the messages recompute, layout, exchange and checkpoint. What a phase
// replaces of the layout stays as it is.
void FillDefaults(RunConfig& config);

// The config without its operational fields, paths cut to their last component: what decides every bit of the result.
RunConfig NumericsOnly(const RunConfig& config);

// SHA-256, 64 hexadecimal digits. A resume must match the numerics hash or is refused; the run hash covers everything.
// Saying a default or leaving it out gives the same hashes.
std::string NumericsHash(const RunConfig& config);
std::string RunHash(const RunConfig& config);

}  // namespace shoestring::config
