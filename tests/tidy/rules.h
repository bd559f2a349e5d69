// The rules of the house that a test can check, each a function from the source tree to its findings.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"

namespace shoestring::tidy {

struct SourceFile {
  std::string path;  // relative to the root of the repository, with '/'
  std::string text;
};

// All files of the repository, text loaded for those that a rule reads; build outputs, runs and hidden caches left out.
struct Tree {
  std::vector<SourceFile> files;  // sorted by path
};

absl::StatusOr<Tree> LoadTree(FileSystem& fs, const std::string& root);

// "path:line: what is wrong", one each; empty when the rule holds.
using Findings = std::vector<std::string>;

Findings CheckLayers(const Tree& tree);           // includes go down, never up or sideways
Findings CheckSourcesAreBuilt(const Tree& tree);  // every .cc and .cu is in a CMakeLists.txt, every .h is included
Findings CheckFileLengths(const Tree& tree);      // at most 500 lines; at most ten source pairs in base
Findings CheckFunctionLengths(const Tree& tree);  // at most 60 lines; device code exempt
Findings CheckMutableGlobals(const Tree& tree);
Findings CheckEnvironmentReads(const Tree& tree);  // getenv only in launch
Findings CheckFirstLines(const Tree& tree);        // a comment that says what the file is for
Findings CheckMarkers(const Tree& tree);           // no notes of work left undone
Findings CheckMachinePaths(const Tree& tree);      // no path that exists on one machine only
Findings CheckLinks(const Tree& tree);             // relative links in Markdown lead to files

}  // namespace shoestring::tidy
