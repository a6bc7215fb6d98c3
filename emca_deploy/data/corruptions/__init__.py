"""Image corruptions: what rain, blur, noise or a poor camera do to an image. `registry` lists the kinds."""
