// The program `shoestring`: hands its words to the verbs.
#include <string>
#include <vector>

#include "launch/verbs.h"

int main(int argc, char** argv) { return shoestring::RunCommandLine(std::vector<std::string>(argv + 1, argv + argc)); }
