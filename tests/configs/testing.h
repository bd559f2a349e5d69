// What the tests of configs share: reading a recipe, and the lines of a failure.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "configs/load.h"
#include "gtest/gtest.h"

namespace shoestring::config {

// Tests run in the repository's root.
inline std::string RecipePath(const std::string& name) { return absl::StrCat("configs/recipes/", name, ".textproto"); }

// A recipe with overrides; the test fails when it does not load.
inline LoadedConfig LoadRecipe(const std::string& name, const std::vector<std::string>& overrides = {}) {
  absl::StatusOr<LoadedConfig> loaded = LoadConfig(PosixFileSystem(), {RecipePath(name)}, overrides);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? *std::move(loaded) : LoadedConfig();
}

inline std::vector<std::string> Lines(const absl::Status& status) { return absl::StrSplit(status.message(), '\n'); }

}  // namespace shoestring::config
