"""Captions as a model may write them: what shows clothes, place, light and expression, and what must not pass."""

# Each as it follows "a photo of a woman".
GOOD = """
wearing a red sweater, in a forest, soft light, smiling
in a blue denim jacket, on a city street, in evening light, serious
wearing a white shirt and a dark tie, in an office, under bright lights, with a neutral expression
in a black T-shirt, in front of a brick wall, in daylight, laughing
wearing a striped sweater, in a kitchen, in warm light, with a slight smile
in a grey hoodie, in a park, on a cloudy day, looking at the camera
wearing a floral dress, in a garden, in the sun, smiling broadly
in a yellow raincoat, on a wet street, in the rain, with a calm expression
wearing a navy suit, in a studio, against a plain grey background, soft studio lighting
in a green wool coat and a scarf, on a snowy road, overcast sky, thoughtful
wearing glasses and a checked shirt, in a library, next to bookshelves, focused
in a leather jacket, at night, neon lights in the background, with a confident look
wearing a white blouse, near a window, natural light, gentle smile
in a sleeveless top, on a beach, at sunset, golden light, laughing
wearing a baseball cap and a T-shirt, in a stadium, in bright sunlight, grinning
in a long black dress, on a stage, under a spotlight, with a dramatic expression
wearing a turtleneck, in a café, warm indoor lighting, a relaxed smile
in a puffer jacket and a knitted hat, in the mountains, clear sky, cheerful
wearing a light blue button-up shirt, in front of a white wall, even lighting, neutral
in a polka-dot blouse, in a living room, by a lamp, content
wearing a hooded sweatshirt, in a gym, under fluorescent lights, tired
in overalls, in a workshop, dim light, concentrated
wearing a pinstriped blazer over a white T-shirt, in a hotel lobby, calm
in a sports jersey, on a football field, in the afternoon sun, shouting
wearing a straw hat and a linen shirt, on a terrace, with a happy smile
in a knitted cardigan, on a sofa, in soft window light, pensive
wearing a winter coat with a fur collar, outdoors, snow falling, smiling
in a black turtleneck, dark background, low light, serious expression
wearing sunglasses and a tank top, by a pool, bright summer light, relaxed
in a maroon sweater, in front of autumn trees, soft daylight, a friendly smile
wearing a headscarf and a long coat, at a market, in morning light, curious
in a plaid flannel shirt, on a wooden porch, late afternoon light, amused
wearing a V-neck sweater, in a classroom, with a surprised look
in a khaki jacket with pockets, on a mountain trail, hazy light, determined
wearing headphones and a hoodie, at a desk, blue light from a screen, focused
in a pink dress with puffed sleeves, in a field of flowers, bright daylight, joyful
wearing a chunky scarf, on a train platform, grey light, looking away
in a dark suit and bow tie, at a party, colourful lights, laughing
wearing a swimsuit, at the sea, under a blue sky, smiling
in a beige trench coat, under an umbrella, on a rainy street, with a worried expression
wearing an apron, in a restaurant kitchen, under warm lamps, with a proud smile
in white, in a bright room, soft shadows, peaceful
dressed in black, in front of a concrete wall, harsh light, stern
wearing a silk blouse and pearl earrings, in a bedroom, candlelight, with a dreamy look
in a red and white striped T-shirt, at a playground, sunny, laughing
wearing a cowboy hat and a denim shirt, in a desert, golden hour, squinting
in a grey blazer, in a conference room, with blurred windows behind her, attentive
wearing a bathrobe, in a bathroom, in bright light, sleepy
in a ski jacket and goggles on a helmet, on a ski slope, bright snow, grinning
wearing a necklace and a green top, in front of green leaves, dappled light, smiling softly
in a lab coat, in a laboratory, cool light, serious
wearing a backpack and a windbreaker, on a bridge, over a river, in fog, looking to the side
in a satin evening gown, on a staircase, warm chandelier light, composed
wearing a cycling jersey and a helmet, on a road, in the morning, exhausted
in a purple hoodie with white letters, in a hallway, dim lighting, bored
wearing a polo shirt, on a golf course, in clear light, friendly
the woman is smiling, in a blue coat, in a garden
standing on a balcony, in a summer dress, city skyline behind her, in the evening
sitting on a bench, in jeans and a jumper, in a park, in the shade, calm
seated at a table with a cup of coffee, in a brown cardigan, in a cafe, smiling
leaning against a car, in a leather jacket, in a parking lot, at dusk, with a smirk
in a corduroy jacket, bookshelf in the background, soft warm light, a thoughtful look
wearing a silver necklace and a black camisole, blurred lights at night, a playful grin
in a hospital, wearing blue scrubs and a mask, under white lights
inside a car, in a seat belt, wearing a grey T-shirt, daylight through the window, neutral
wearing a burgundy corduroy shirt, in front of a graffiti-covered wall, overcast daylight, with a slight smirk
in a crisp white dress shirt and black suspenders, at a wooden bar, under amber pendant lights, relaxed and smiling
wearing a pale green sundress, on a grassy hillside, windblown clouds overhead, with a joyful laugh
in a charcoal overcoat and a red beanie, on a crosswalk, headlights glowing behind, looking straight ahead
wearing a neon running vest, on a track, in low morning sun, with an intense look
in a cable-knit sweater, beside a fireplace, flickering firelight, content
wearing a denim shirt with rolled-up sleeves, in a pottery studio, diffused window light, concentrated
in a dark green parka, on a rocky beach, grey sky and rough sea, squinting into the wind
in a tweed jacket, in a study lined with books, warm desk lamp, serious
in a graphic T-shirt, on a skateboard ramp, harsh midday sun, grinning at the camera
in a ski suit, next to a chairlift, blue sky, excited
wearing a grey suit jacket without a tie, on an airport escalator, cold light, tired
in a floral headscarf, at a fruit stall, sunlight through awnings, a warm smile
wearing a hospital gown, in a bed with white sheets, dim light, weary
in a rain-soaked jacket, at a bus stop at night, street lamps reflected in puddles, gloomy
wearing a mustard turtleneck and round glasses, against a teal backdrop, studio flash, an amused expression
in a striped apron, behind a counter with pastries, morning light, cheerful
in a hooded robe, in a stone courtyard, under moonlight, solemn
wearing a varsity jacket, on bleachers, stadium lights at night, shouting with joy
in an orange life vest, in a kayak, glittering water, laughing
wearing a bucket hat and a windbreaker, on a ferry deck, sea mist, looking out over the water
wearing pyjamas, in a bathroom mirror, yellow light, yawning
in a tuxedo, on a marble staircase, chandeliers overhead, a polite smile
wearing a light gray sweater, sitting at a wooden table, indoors with soft natural light, with a gentle smile
in a dark blue blazer over a white shirt, by a bookshelf, bright indoor lighting, looking directly at the camera
wearing a red and black plaid shirt, outdoors in a field, golden sunlight, smiling warmly
in a black leather jacket and blue jeans, on a rooftop at sunset, warm light, looking confident
wearing a white T-shirt, against a plain white background, even studio lighting, neutral expression
in a navy blue polo shirt, in an office with large windows, daylight, a friendly smile
wearing a knitted beige sweater and a brown scarf, on a leaf-covered path, soft autumn light, looking thoughtful
in a sleeveless green dress, at an outdoor cafe, dappled sunlight, laughing happily
wearing a hoodie with a printed logo, on a subway platform, fluorescent lighting, serious
in a yellow summer dress and a straw hat, on a sandy beach with gentle waves, bright sunshine, cheerful expression
wearing a formal suit with a patterned tie, on a stage with a blue curtain, spotlight, speaking with a serious look
wearing a denim jacket over a striped top, leaning on a railing, city lights in the distance, a calm expression
wearing a grey tracksuit, in an empty gym, dim light, focused and determined
in a white lab coat and safety glasses, in a bright laboratory, cool white light, concentrating on her work
wearing a blue swimsuit, at the edge of a swimming pool, strong midday sun, grinning
wearing a purple scarf and a black coat, in front of a stone building, grey daylight, slightly smiling
in a cream-coloured cardigan, on a grey sofa with cushions, window light from the left, a soft smile
wearing a football jersey, in a crowded stadium, floodlights, cheering
in a linen shirt with the top button open, on a boat, bright sun and blue water, squinting slightly
wearing a dark hoodie and headphones, in front of a computer screen, blue glow, absorbed
in an orange safety vest and a white helmet, at a construction site, hazy daylight, serious expression
wearing a checked blazer, in a lecture hall, projector light, explaining something with a smile
in a strapless evening gown, in a ballroom, glittering chandelier light, radiant smile
wearing a cotton apron over a blue shirt, in a bakery, warm light from above, smiling proudly
in a rain jacket, by a lake in the mountains, misty light, peaceful expression
""".strip().splitlines()

# Names in lower case, comparisons, who somebody is, body, skin, age, origin, hair and features: a part each.
BAD = """
emma watson
resembling a young audrey hepburn
known as the queen of pop
as wonder woman
dressed as lara croft
looking like a film star
who is scarlett johansson
named sarah
called maria
with the looks of a supermodel
in the style of marilyn monroe
a lookalike of brad pitt
reminiscent of grace kelly
a famous actress
the singer adele
beyonce on stage
slim
elegant
pale
with a tattoo
slender and tall
tall and athletic
with a curvy figure
with broad shoulders
muscular arms
with a petite build
overweight
with a long neck
with fair skin
with dark skin
tan and freckled
with a smooth complexion
with porcelain skin
olive-skinned
light-skinned
black
white
brown
a black woman in a dress
of african descent
asian
with european features
indian
a jewish woman
of mixed heritage
latina
about thirty
middle-aged
25 years old
in her twenties
young and fresh
old and wrinkled
with gray hair
with long blonde hair
with curly locks
bald
with bangs
with a ponytail
a beard
with stubble
brown-eyed
with green eyes
with high cheekbones
with full lips
with a pointed nose
with a strong jaw
with white teeth
with thick brows
with a dimpled smile
with a scar
with a nose ring
with red lipstick
beautiful
pretty and smiling
attractive
handsome
charming
cute smile
gorgeous in a red dress
like a princess
my wife
a mother of two
next to her husband
with friends
pregnant
the woman is pale
the woman is black
the woman is tall
she is slim
she looks asian
looking pale
looking young
in a t-shirt that says mary
with dark circles
on the cover of vogue
from paris
a nurse
a soldier
jennifer in a blue coat
with amber
barack obama in a suit
with rosy cheeks
short and smiling
dark and handsome
in a wheelchair
with a light tan
very tall
small and thin
wearing her pale skin
the spitting image of meryl streep
a young tom hanks type
could be mistaken for rihanna
aka jenny
better known as bono
just like her sister
with an hourglass shape
with toned arms
with a round face
with a double chin
with a receding hairline
with sun-kissed skin
with a deep tan
brunette with glasses
a redhead in a coat
with a nordic look
ethnically ambiguous
native american in a jacket
mid forties
a teenager in jeans
elderly and frail
baby-faced
with a mole near the lip
with crow's feet
with veneers
clean-shaven
with a shaved head
unibrow and a smile
with heavy makeup
dolled up
skinny jeans and slim waist
leggy in a short skirt
busty
a doctor in a lab coat
mrs robinson in a red coat
olivia
by the singer sade
in the likeness of cleopatra
resembles nobody
very light and pretty
transgender
blind in one eye
a gay man
the duchess in a hat
black lady in a green dress
white male in a suit
fair and small
ruby
sandy in the garden
with rocky
looks like a model
seen as a beauty
light and dark
tan
all brown
who looks like taylor swift
""".strip().splitlines()
