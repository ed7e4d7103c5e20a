"""The torture: workers and servers are killed, frozen and cut off by a seeded plan, and every row is accounted for."""
