#pragma once

#include <string>

#include "cli/command_tree.h"

namespace relay::cli {

// Scripts that complete the commands, flags and choices of a program in a shell. They call nothing:
// what they offer is written in them. Flags of the program belong to each command, too.

std::string bash_completion(const CommandTree& program);
std::string zsh_completion(const CommandTree& program);
std::string fish_completion(const CommandTree& program);

}  // namespace relay::cli
