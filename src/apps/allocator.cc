// Read by jemalloc (https://jemalloc.net/jemalloc.3.html#tuning), where the program is linked with
// it. Batches and messages are made by one thread and freed by another, which one arena serves
// best; what is free for a second goes back to the system.
extern "C" const char* malloc_conf;
const char* malloc_conf = "narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0";
