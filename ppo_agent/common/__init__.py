"""What networks/ and drivers/ may import besides maths/: nests, specs, checks, files."""
