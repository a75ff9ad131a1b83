#pragma once

#include <string>

#include "connector/registry.h"

namespace relay::stream_program {

struct QuickstartArguments {
  int rate = 2;           ///< users a second
  double duration = 0;    ///< seconds; 0: until interrupted
  double outage = 8;      ///< seconds for which the sink is down, once
  std::string directory;  ///< where the server's data goes; empty: a temporary directory
};

/// A throw-away PostgreSQL in which users sign up, a web server of our own that prints their
/// events, and the stream between the two. Returns an exit code.
int quickstart(const Registry& registry, const QuickstartArguments& arguments);

}  // namespace relay::stream_program
