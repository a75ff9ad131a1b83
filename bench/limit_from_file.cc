// The shortest way from a file of lines into an inbox that notes how far is committed.
//   limit_from_file INBOX_URL INBOX_TABLE BATCH COUNT PATH
#include <fstream>

#include "inbox_writer.h"

int main(int argc, char** argv) {
  if (argc != 6) bench::die("usage", "see the head of limit_from_file.cc");
  bench::InboxWriter writer(argv[1], argv[2], std::atoi(argv[3]));
  const std::string path = argv[5];
  std::ifstream lines(path);
  std::ofstream position(path + ".limit");
  const auto note = [&](long offset) {
    position.seekp(0);
    position << offset << std::endl;
  };
  long offset = 0;
  std::string line;
  for (long left = std::atol(argv[4]); left > 0 && std::getline(lines, line); --left) {
    const std::string id = path + ":" + std::to_string(offset);
    writer.add(id, "", line, bench::headers_of(id));
    offset += static_cast<long>(line.size()) + 1;
    if (writer.full()) writer.send([&, offset] { note(offset); });
  }
  writer.send([&, offset] { note(offset); });
  writer.finish();
  return position ? 0 : 1;
}
